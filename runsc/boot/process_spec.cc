#include "runsc/boot/process_spec.h"

#include <algorithm>

namespace moat {
namespace {

RefPtr<const Credentials> MakeCredentials(Kernel& kernel, const oci::Process& process) {
  RefPtr<Credentials> cred = Credentials::CreateRoot(kernel.root_user_ns())->Copy();
  cred->uid = cred->euid = cred->suid = cred->fsuid = process.user.uid;
  cred->gid = cred->egid = cred->sgid = cred->fsgid = process.user.gid;
  cred->groups.assign(process.user.additional_gids.begin(), process.user.additional_gids.end());
  std::sort(cred->groups.begin(), cred->groups.end());
  oci::Capabilities caps = process.capabilities.value_or(oci::Capabilities{});
  cred->bounding = caps.bounding;
  cred->permitted = caps.permitted;
  cred->effective = caps.effective;
  cred->inheritable = caps.inheritable;
  cred->ambient = caps.ambient;
  cred->no_new_privs = process.no_new_privileges;
  return cred;
}

}  // namespace

ProcessSpec MakeProcessSpec(Kernel& kernel, const oci::Process& process, const std::vector<RefPtr<File>>& stdio) {
  ProcessSpec spec;
  spec.executable = process.args.front();
  spec.argv = process.args;
  spec.envp = process.env;
  spec.cwd = process.cwd;
  spec.umask = process.user.umask.value_or(022);
  spec.credentials = MakeCredentials(kernel, process);
  for (const oci::Rlimit& r : process.rlimits) spec.rlimits.Set(r.resource, Rlimit{r.soft, r.hard});
  spec.oom_score_adj = process.oom_score_adj.value_or(0);
  if (process.scheduler) {
    const oci::Scheduler& s = *process.scheduler;
    spec.sched.policy = s.policy;
    spec.sched.priority = s.priority;
    spec.sched.nice = s.nice;
    spec.sched.reset_on_fork = s.reset_on_fork;
    spec.sched.runtime = s.runtime;
    spec.sched.deadline = s.deadline;
    spec.sched.period = s.period;
  }
  spec.sched.ioprio = process.io_priority.value_or(0);
  spec.files = FdTable::Create();
  for (size_t i = 0; i < stdio.size(); ++i) {
    if (stdio[i]) [[maybe_unused]]
      auto old = spec.files->InstallAt(static_cast<int>(i), stdio[i], /*cloexec=*/false, ~uint64_t{0});
  }
  return spec;
}

}  // namespace moat
