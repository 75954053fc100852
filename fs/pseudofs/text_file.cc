#include "fs/pseudofs/text_file.h"

#include <charconv>

namespace moat {

Result<size_t> TextInode::Store(const VfsContext&, std::string_view, int64_t) { return kEIO; }

Result<RefPtr<File>> TextInode::Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  TRY(CheckOpen(ctx, flags));
  return RefPtr<File>(MakeRef<TextFile>(path, flags, RefPtr<TextInode>(this)));
}

Result<size_t> TextFile::PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) {
  std::shared_ptr<const std::string> text;
  if (offset != 0) {
    MutexLock lock(mu_);
    text = snapshot_;
  }
  if (!text) {
    text = std::make_shared<const std::string>(TRY(text_inode_->Generate(ctx)));
    MutexLock lock(mu_);
    snapshot_ = text;
  }
  if (static_cast<uint64_t>(offset) >= text->size() || dst.remaining() == 0) return size_t{0};
  return dst.Put(text->data() + offset, std::min(text->size() - offset, dst.remaining()));
}

Result<size_t> TextFile::PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) {
  std::string text(std::min(src.remaining(), TextInode::kMaxWrite), '\0');
  size_t n = text.empty() ? 0 : TRY(src.Take(text.data(), text.size()));
  if (n != text.size()) return kEFAULT;
  Result<size_t> stored = text_inode_->Store(ctx, text, offset);
  MutexLock lock(mu_);
  snapshot_ = nullptr;
  return stored;
}

Result<int64_t> TextFile::Seek(const VfsContext&, int64_t to, int whence) {
  MutexLock lock(offset_mutex());
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(to, offset(), &to)) return kEOVERFLOW;
  } else if (whence != SEEK_SET) {
    return kEINVAL;
  }
  if (to < 0) return kEINVAL;
  set_offset(to);
  return to;
}

namespace {

class FunctionText final : public TextInode {
 public:
  FunctionText(FileSystem& fs, uint32_t permissions, TextGenerator generate, TextWriter write)
      : TextInode(fs, fs.NextIno(), permissions), generate_(std::move(generate)), write_(std::move(write)) {}
  Result<std::string> Generate(const VfsContext& ctx) override { return generate_(ctx); }
  Result<size_t> Store(const VfsContext& ctx, std::string_view text, int64_t) override {
    if (!write_) return kEIO;
    return write_(ctx, text);
  }

 private:
  const TextGenerator generate_;
  const TextWriter write_;
};

class FunctionLink final : public PseudoInode {
 public:
  FunctionLink(FileSystem& fs, LinkTarget target)
      : PseudoInode(fs, S_IFLNK, fs.NextIno(), 0777), target_(std::move(target)) {}
  Result<std::string> Readlink(const VfsContext& ctx) override { return target_(ctx); }
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kELOOP; }

 private:
  const LinkTarget target_;
};

}  // namespace

RefPtr<Inode> MakeText(FileSystem& fs, uint32_t permissions, TextGenerator generate, TextWriter write) {
  return MakeRef<FunctionText>(fs, permissions, std::move(generate), std::move(write));
}

RefPtr<Inode> MakeFixedText(FileSystem& fs, uint32_t permissions, std::string text) {
  return MakeText(fs, permissions, [text = std::move(text)](const VfsContext&) -> Result<std::string> { return text; });
}

RefPtr<Inode> MakeLink(FileSystem& fs, LinkTarget target) { return MakeRef<FunctionLink>(fs, std::move(target)); }

RefPtr<Inode> MakeFixedLink(FileSystem& fs, std::string target) {
  return MakeLink(fs, [target = std::move(target)](const VfsContext&) -> Result<std::string> { return target; });
}

Result<int64_t> ParseDecimal(std::string_view text, int64_t min, int64_t max) {
  auto space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\0'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  int64_t value = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value < min || value > max) return kEINVAL;
  return value;
}

}  // namespace moat
