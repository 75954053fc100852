// devpts: /dev/pts and the multiplexer ptmx. Each mount is an instance of its own (Linux since 4.7), with numbers,
// owner and modes of its own. Source: pts(4), Documentation/filesystems/devpts.rst.
#ifndef MOAT_FS_DEVPTS_DEVPTS_H_
#define MOAT_FS_DEVPTS_DEVPTS_H_

#include <map>
#include <optional>

#include "fs/devpts/pty.h"
#include "fs/pseudofs/pseudo_fs.h"
#include "fs/vfs/vfs.h"

namespace moat {

// Registers the type "devpts" and the drivers of ptmx (5,2) and the slaves (136,*). Once, at boot.
void RegisterDevpts();

struct DevptsOptions {
  std::optional<Kuid> uid;
  std::optional<Kgid> gid;
  uint32_t mode = 0600;
  uint32_t ptmx_mode = 0;
  uint32_t max = 1 << 20;
};
// "newinstance,gid=5,mode=620,ptmxmode=666". Ids are the mounter's. kEINVAL for what Linux refuses.
Result<DevptsOptions> ParseDevptsOptions(const UserNamespace& ns, std::string_view data);

class DevptsFs final : public PseudoFs {
 public:
  static RefPtr<DevptsFs> Create(const DevptsOptions& options);
  std::string ShowOptions() const override;

  // open(2) of a ptmx node: a new pair. `root`: this instance's mounted root, for TIOCGPTPEER. kENOSPC when full.
  Result<RefPtr<File>> OpenMaster(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, VfsPath root);
  void Release(uint32_t number);
  RefPtr<Inode> FindSlave(uint32_t number);

 private:
  friend class DevptsDir;
  explicit DevptsFs(const DevptsOptions& options);
  const DevptsOptions options_;
  RefPtr<Inode> ptmx_;
  Mutex mu_{LockRank::kInode};
  std::map<uint32_t, RefPtr<Inode>> slaves_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_DEVPTS_DEVPTS_H_
