// procfs: the kernel's state as files. An instance shows the processes of the pid namespace of who mounted it.
// Source: proc(5); the formats are those of fs/proc in Linux.
#ifndef MOAT_SENTRY_PROCFS_PROCFS_H_
#define MOAT_SENTRY_PROCFS_PROCFS_H_

#include "fs/pseudofs/pseudo_fs.h"
#include "sentry/kernel/kernel.h"

namespace moat {

// Registers the file system type "proc". Once, at boot; `kernel` outlives all mounts.
void RegisterProcfs(Kernel& kernel);

class ProcFs final : public PseudoFs {
 public:
  // `hide_pid`: 0, 1 (noaccess), 2 (invisible), 4 (ptraceable); `pid_only`: subset=pid.
  struct Options {
    int hide_pid = 0;
    Kgid gid = 0;
    bool pid_only = false;
  };
  static RefPtr<ProcFs> Create(Kernel& kernel, RefPtr<PidNamespace> ns, const Options& options);
  std::string ShowOptions() const override;

  Kernel& kernel() const { return kernel_; }
  PidNamespace& ns() const { return *ns_; }
  // hidepid: may the caller see (`list`) or look into the process at all?
  bool MaySee(const VfsContext& ctx, Task& target, bool list) const;

 private:
  ProcFs(Kernel& kernel, RefPtr<PidNamespace> ns, const Options& options);
  Kernel& kernel_;
  const RefPtr<PidNamespace> ns_;
  const Options options_;
};

// The calling task, or null for calls of the sentry itself.
inline Task* Caller(const VfsContext& ctx) { return static_cast<Task*>(ctx.task); }

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_PROCFS_H_
