// Structures of process calls at the guest boundary. Source: <linux/sched.h>, <linux/resource.h>, <linux/utsname.h>;
// clone(2), getrusage(2), prlimit(2), uname(2), sysinfo(2), sched_setattr(2), capget(2).
#ifndef MOAT_PLATFORM_ABI_PROCESS_H_
#define MOAT_PLATFORM_ABI_PROCESS_H_

#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <cstdint>

namespace moat::abi {

struct CloneArgs {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  uint64_t set_tid, set_tid_size;  // since v1
  uint64_t cgroup;                 // since v2
};
static_assert(sizeof(CloneArgs) == 88);
inline constexpr uint64_t kCloneArgsSizeV0 = 64;

using Rusage = struct ::rusage;
static_assert(sizeof(Rusage) == 144);
struct Rlimit64 {
  uint64_t soft, hard;
};
using Utsname = struct ::utsname;
static_assert(sizeof(Utsname) == 390);
using Sysinfo = struct ::sysinfo;
static_assert(sizeof(Sysinfo) == 112);

struct SchedParam {
  int32_t priority;
};
struct SchedAttr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
  uint32_t util_min, util_max;  // since v1
};
static_assert(sizeof(SchedAttr) == 56);
inline constexpr uint32_t kSchedAttrSizeV0 = 48;

struct CapHeader {
  uint32_t version;
  int32_t pid;
};
struct CapData {
  uint32_t effective, permitted, inheritable;
};

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_PROCESS_H_
