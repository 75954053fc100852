// /proc/sys, made from one table (sysctl_table.cc).
#ifndef MOAT_SENTRY_PROCFS_SYSCTL_H_
#define MOAT_SENTRY_PROCFS_SYSCTL_H_

#include "sentry/procfs/procfs.h"

namespace moat {

struct SysctlRow {
  const char* path;  // below /proc/sys
  uint32_t mode;
  // Exactly one of the next two; a newline is added.
  const char* fixed = nullptr;
  Result<std::string> (*get)(ProcFs& fs, const VfsContext& ctx) = nullptr;
  // `value` without the final newline. Null: writing answers EIO (the mode forbids it to all but root).
  Result<void> (*set)(ProcFs& fs, const VfsContext& ctx, std::string_view value) = nullptr;
};
const std::vector<SysctlRow>& SysctlTable();

RefPtr<Inode> MakeSysctlTree(ProcFs& fs);

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_SYSCTL_H_
