// tmpfs: a file system in the sandbox's memory file. Source: tmpfs(5), Documentation/filesystems/tmpfs.rst.
#ifndef MOAT_FS_TMPFS_TMPFS_H_
#define MOAT_FS_TMPFS_TMPFS_H_

#include <string>
#include <string_view>

#include "fs/vfs/filesystem.h"
#include "fs/vfs/paged_data.h"

namespace moat {

// Registers the type "tmpfs". Once, at boot, before privileges are given up; `memory` outlives all mounts.
void RegisterTmpfs(MemoryFile& memory);

class TmpfsFs final : public FileSystem {
 public:
  struct Options {
    uint64_t pages = 0;   // 0: no limit
    uint64_t inodes = 0;  // 0: no limit
    uint32_t mode = 01777;
    Kuid uid = 0;
    Kgid gid = 0;
  };
  // "size=64k,mode=755": on top of `base`. kEINVAL for anything unknown or malformed.
  static Result<Options> Parse(const UserNamespace& ns, std::string_view data, const Options& base);
  // Half of the host's memory, and as many inodes as half of its pages, as Linux's defaults.
  static Options Defaults();
  static Result<RefPtr<TmpfsFs>> Create(MemoryFile& memory, const Options& options);

  RefPtr<Inode> root() override { return root_; }
  Result<FsStat> StatFs() override;
  std::string ShowOptions() const override;
  Result<void> Reconfigure(std::string_view data) override;
  // Handles are rarely opened: the way to the file is searched for in the whole tree.
  Result<FileHandle> EncodeHandle(const Inode& inode) override;
  Result<std::vector<std::string>> DecodeHandle(const FileHandle& handle) override;

  MemoryFile& memory() { return memory_; }
  const RefPtr<FileQuota>& quota() const { return quota_; }

 private:
  friend RefPtr<TmpfsFs> MakeRef<TmpfsFs, MemoryFile&, const Options&>(MemoryFile&, const Options&);
  TmpfsFs(MemoryFile& memory, const Options& options);

  MemoryFile& memory_;
  const RefPtr<FileQuota> quota_;
  const Options options_;
  const uint32_t generation_;  // of handles: another instance's mean nothing here
  RefPtr<Inode> root_;
};

}  // namespace moat

#endif  // MOAT_FS_TMPFS_TMPFS_H_
