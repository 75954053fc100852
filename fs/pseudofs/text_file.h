// Generated text files and links. The text is made at the first read, and anew when a read starts at offset 0 again
// (as seq_file does), so that a reader in small pieces sees one consistent snapshot.
#ifndef MOAT_FS_PSEUDOFS_TEXT_FILE_H_
#define MOAT_FS_PSEUDOFS_TEXT_FILE_H_

#include <memory>

#include "absl/functional/any_invocable.h"
#include "fs/pseudofs/pseudo_fs.h"

namespace moat {

class TextInode : public PseudoInode {
 public:
  TextInode(FileSystem& fs, uint64_t ino, uint32_t permissions) : PseudoInode(fs, S_IFREG, ino, permissions) {}
  virtual Result<std::string> Generate(const VfsContext& ctx) = 0;
  // One write(2) of at most kMaxWrite bytes. Returns how many were taken; default kEIO.
  virtual Result<size_t> Store(const VfsContext& ctx, std::string_view text, int64_t offset);
  // A check at open(2) beyond the mode bits.
  virtual Result<void> CheckOpen(const VfsContext& ctx, OpenFlags flags) { return {}; }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  // Whether epoll(7) takes the file: most generated files, but not those of a process's directory.
  virtual bool polled() const { return true; }

  static constexpr size_t kMaxWrite = 4096;
};

class TextFile : public File {
 public:
  TextFile(VfsPath path, OpenFlags flags, RefPtr<TextInode> inode)
      : File(std::move(path), flags), text_inode_(std::move(inode)) {}
  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  bool SupportsEpoll() const override { return text_inode_->polled(); }

 private:
  const RefPtr<TextInode> text_inode_;
  Mutex mu_{LockRank::kInode};
  std::shared_ptr<const std::string> snapshot_ ABSL_GUARDED_BY(mu_);
};

using TextGenerator = absl::AnyInvocable<Result<std::string>(const VfsContext&) const>;
using TextWriter = absl::AnyInvocable<Result<size_t>(const VfsContext&, std::string_view) const>;

// A text file made of functions. Without a writer, writing answers kEIO.
RefPtr<Inode> MakeText(FileSystem& fs, uint32_t permissions, TextGenerator generate, TextWriter write = {});
RefPtr<Inode> MakeFixedText(FileSystem& fs, uint32_t permissions, std::string text);

using LinkTarget = absl::AnyInvocable<Result<std::string>(const VfsContext&) const>;
RefPtr<Inode> MakeLink(FileSystem& fs, LinkTarget target);
RefPtr<Inode> MakeFixedLink(FileSystem& fs, std::string target);

// "  42\n" -> 42; kEINVAL for anything else or out of [min, max]. For writable numbers in /proc and /sys.
Result<int64_t> ParseDecimal(std::string_view text, int64_t min, int64_t max);

}  // namespace moat

#endif  // MOAT_FS_PSEUDOFS_TEXT_FILE_H_
