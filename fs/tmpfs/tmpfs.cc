#include "fs/tmpfs/tmpfs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <unistd.h>

#include <charconv>

#include "fs/tmpfs/memfd.h"
#include "fs/tmpfs/tmpfs_inode.h"
#include "fs/vfs/vfs.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

namespace moat {
namespace {

MemoryFile* memory_file = nullptr;  // set once at boot
uint64_t host_pages = 0;

Result<uint64_t> ParseNumber(std::string_view text, int base, std::string_view* rest = nullptr) {
  uint64_t v = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v, base);
  if (error != std::errc() || end == text.data()) return kEINVAL;
  std::string_view left = text.substr(static_cast<size_t>(end - text.data()));
  if (rest != nullptr) {
    *rest = left;
  } else if (!left.empty()) {
    return kEINVAL;
  }
  return v;
}

// memparse(): a number with k, m, g, t, p or e; with `percent` also a share of the memory, in bytes.
Result<uint64_t> ParseSize(std::string_view text, bool percent) {
  std::string_view rest;
  uint64_t v = TRY(ParseNumber(text, 10, &rest));
  if (rest.empty()) return v;
  if (rest == "%" && percent) return host_pages * kPageSize / 100 * v;
  if (rest.size() != 1) return kEINVAL;
  static constexpr std::string_view kUnits = "kmgtpe";
  size_t unit = kUnits.find(static_cast<char>(rest[0] | 0x20));
  if (unit == kUnits.npos) return kEINVAL;
  uint64_t scaled;
  if (__builtin_mul_overflow(v, uint64_t{1} << (10 * (unit + 1)), &scaled)) return kEINVAL;
  return scaled;
}

class TmpfsType final : public FileSystemType {
 public:
  std::string_view name() const override { return "tmpfs"; }
  bool mountable_in_user_ns() const override { return true; }
  Result<void> CheckParameter(const VfsContext& ctx, const MountParameter& p) override {
    TRY(TmpfsFs::Parse(*ctx.cred.user_ns, p.is_flag ? p.key : p.key + "=" + p.value, TmpfsFs::Defaults()));
    return {};
  }
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) override {
    TmpfsFs::Options base = TmpfsFs::Defaults();
    base.uid = ctx.cred.fsuid;
    base.gid = ctx.cred.fsgid;
    TmpfsFs::Options options = TRY(TmpfsFs::Parse(*ctx.cred.user_ns, request.data, base));
    return RefPtr<FileSystem>(TRY(TmpfsFs::Create(*memory_file, options)));
  }
};

// The mount that memfds live in; no path reaches it.
const RefPtr<TmpfsFs>& MemfdFs() {
  static const RefPtr<TmpfsFs>* fs = new RefPtr<TmpfsFs>(TmpfsFs::Create(*memory_file, TmpfsFs::Options{}).value());
  return *fs;
}

TmpfsRegular* RegularOf(File& file) { return dynamic_cast<TmpfsRegular*>(file.inode().get()); }

}  // namespace

void RegisterTmpfs(MemoryFile& memory) {
  memory_file = &memory;
  host_pages = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES));
  static TmpfsType type;
  vfs::RegisterFileSystemType(type);
}

TmpfsFs::TmpfsFs(MemoryFile& memory, const Options& options)
    : FileSystem("tmpfs"),
      memory_(memory),
      quota_(MakeRef<FileQuota>(options.pages, options.inodes)),
      options_(options),
      generation_([] {
        static std::atomic<uint32_t> next{1};
        return next.fetch_add(1, std::memory_order_relaxed);
      }()) {}

TmpfsFs::Options TmpfsFs::Defaults() {
  Options o;
  o.pages = host_pages / 2;
  o.inodes = host_pages / 2;
  return o;
}

Result<RefPtr<TmpfsFs>> TmpfsFs::Create(MemoryFile& memory, const Options& o) {
  RefPtr<TmpfsFs> fs = MakeRef<TmpfsFs, MemoryFile&, const Options&>(memory, o);
  if (!fs->quota_->ChargeInode()) return kENOSPC;
  fs->root_ = MakeRef<TmpfsDirectory>(*fs, TmpfsInode::New{S_IFDIR | (o.mode & 07777), o.uid, o.gid, 2});
  return fs;
}

Result<TmpfsFs::Options> TmpfsFs::Parse(const UserNamespace& ns, std::string_view data, const Options& base) {
  Options o = base;
  while (!data.empty()) {
    size_t comma = std::min(data.find(','), data.size());
    std::string_view item = data.substr(0, comma);
    data.remove_prefix(std::min(comma + 1, data.size()));
    if (item.empty()) continue;
    size_t eq = std::min(item.find('='), item.size());
    std::string_view key = item.substr(0, eq);
    std::string_view value = item.substr(std::min(eq + 1, item.size()));
    if (key == "size") {
      uint64_t bytes = TRY(ParseSize(value, true));
      o.pages = bytes / kPageSize + (bytes % kPageSize != 0);
    } else if (key == "nr_blocks") {
      o.pages = TRY(ParseSize(value, false));
    } else if (key == "nr_inodes") {
      o.inodes = TRY(ParseSize(value, false));
    } else if (key == "mode") {
      o.mode = static_cast<uint32_t>(TRY(ParseNumber(value, 8))) & 07777;
    } else if (key == "uid") {
      o.uid = ns.ToKuid(static_cast<uint32_t>(TRY(ParseNumber(value, 10))));
      if (o.uid == kNoId) return kEINVAL;
    } else if (key == "gid") {
      o.gid = ns.ToKgid(static_cast<uint32_t>(TRY(ParseNumber(value, 10))));
      if (o.gid == kNoId) return kEINVAL;
    } else if (key != "huge" && key != "mpol" && key != "inode32" && key != "inode64" && key != "noswap") {
      // Those ask for a placement of the memory, which is the host's.
      return kEINVAL;
    }
  }
  return o;
}

Result<FsStat> TmpfsFs::StatFs() {
  FsStat st;
  st.type = TMPFS_MAGIC;
  st.fsid = device().minor;
  uint64_t pages = quota_->max_pages(), inodes = quota_->max_inodes();
  if (pages != 0) {
    st.blocks = pages;
    st.blocks_free = st.blocks_available = pages - std::min(pages, quota_->used_pages());
  }
  if (inodes != 0) {
    st.files = inodes;
    st.files_free = inodes - std::min(inodes, quota_->used_inodes());
  }
  return st;
}

std::string TmpfsFs::ShowOptions() const {
  Options d = Defaults();
  std::string out;
  auto add = [&](std::string item) { out += (out.empty() ? "" : ",") + std::move(item); };
  if (quota_->max_pages() != d.pages) add(fmt::format("size={}k", quota_->max_pages() * 4));
  if (quota_->max_inodes() != d.inodes) add(fmt::format("nr_inodes={}", quota_->max_inodes()));
  if (options_.mode != 01777) add(fmt::format("mode={:03o}", options_.mode));
  if (options_.uid != 0) add(fmt::format("uid={}", options_.uid));
  if (options_.gid != 0) add(fmt::format("gid={}", options_.gid));
  return out;
}

Result<void> TmpfsFs::Reconfigure(std::string_view data) {
  Options now = options_;
  now.pages = quota_->max_pages();
  now.inodes = quota_->max_inodes();
  // Ids do not change with a remount: any namespace serves to parse them.
  Options o = TRY(Parse(*UserNamespace::CreateRoot(), data, now));
  if (o.pages != 0 && o.pages < quota_->used_pages()) return kEINVAL;
  if (o.inodes != 0 && o.inodes < quota_->used_inodes()) return kEINVAL;
  quota_->SetLimits(o.pages, o.inodes);
  return {};
}

Result<RefPtr<File>> CreateMemfd(const VfsContext& ctx, std::string_view name, unsigned flags) {
  TmpfsFs& fs = *MemfdFs();
  if (!fs.quota()->ChargeInode()) return kENOSPC;
  bool no_exec = (flags & MFD_NOEXEC_SEAL) != 0;
  uint32_t seals = no_exec ? uint32_t{F_SEAL_EXEC} : (flags & MFD_ALLOW_SEALING) != 0 ? 0 : uint32_t{F_SEAL_SEAL};
  TmpfsInode::New n{S_IFREG | (no_exec ? 0666u : 0777u), ctx.cred.fsuid, ctx.cred.fsgid, 0};
  RefPtr<Inode> inode = MakeRef<TmpfsRegular>(fs, n, seals, false);
  VfsPath path = vfs::AnonymousPath(inode, fmt::format("/memfd:{} (deleted)", name));
  return inode->Open(ctx, path, OpenFlags{O_RDWR | 0100000 /* O_LARGEFILE */});
}

Result<void> AddSeals(File& file, uint32_t seals) {
  TmpfsRegular* r = RegularOf(file);
  if (r == nullptr) return kEINVAL;
  if (!file.writable()) return kEPERM;
  return r->data().AddSeals(seals);
}

Result<int64_t> GetSeals(File& file) {
  TmpfsRegular* r = RegularOf(file);
  if (r == nullptr) return kEINVAL;
  return static_cast<int64_t>(r->data().seals());
}

}  // namespace moat
