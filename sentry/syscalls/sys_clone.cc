// Source: clone(2), fork(2), vfork(2).
#include <linux/sched.h>

#include "sentry/kernel/task_clone.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

constexpr uint64_t kKnownFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PIDFD | CLONE_PTRACE |
                                 CLONE_VFORK | CLONE_PARENT | CLONE_THREAD | CLONE_NEWNS | CLONE_SYSVSEM |
                                 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_DETACHED |
                                 CLONE_UNTRACED | CLONE_CHILD_SETTID | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                 CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_IO | CLONE_CLEAR_SIGHAND;
constexpr size_t kMaxSetTid = 32;  // MAX_PID_NS_LEVEL

}  // namespace

Result<int64_t> SysClone(Task& t, CloneFlagBits flags, GuestAddr stack, GuestAddr parent_tid, GuestAddr child_tid,
                         GuestAddr tls) {
  CloneRequest r;
  // clone(2) takes the low 32 bits; what only clone3 knows does not exist here.
  r.flags = Raw(flags) & 0xffffffffu & ~uint64_t{CSIGNAL};
  r.exit_signal = static_cast<int>(Raw(flags) & CSIGNAL);
  r.stack = stack;
  r.tls = tls;
  r.parent_tid = parent_tid;
  r.child_tid = child_tid;
  r.pidfd = parent_tid;
  if ((r.flags & CLONE_PIDFD) != 0 && (r.flags & CLONE_PARENT_SETTID) != 0) return kEINVAL;
  if ((r.flags & CLONE_THREAD) != 0) r.exit_signal = 0;
  return TRY(CloneTask(t, r));
}

Result<int64_t> SysFork(Task& t) {
  CloneRequest r;
  r.exit_signal = SIGCHLD;
  return TRY(CloneTask(t, r));
}

Result<int64_t> SysVfork(Task& t) {
  CloneRequest r;
  r.flags = CLONE_VM | CLONE_VFORK;
  r.exit_signal = SIGCHLD;
  return TRY(CloneTask(t, r));
}

Result<int64_t> SysClone3(Task& t, GuestAddr args_at, size_t size) {
  if (size > kPageSize) return kE2BIG;
  if (size < abi::kCloneArgsSizeV0) return kEINVAL;
  abi::CloneArgs a{};
  GuestMemory& memory = t.memory();
  const size_t known = std::min(size, sizeof a);
  if (memory.CopyIn(&a, args_at, known) != known) return kEFAULT;
  // A newer caller's structure is fine as long as what we do not know is zero.
  for (size_t done = known; done < size;) {
    char rest[256];
    const size_t n = std::min(sizeof rest, size - done);
    if (memory.CopyIn(rest, args_at + done, n) != n) return kEFAULT;
    for (size_t i = 0; i < n; ++i) {
      if (rest[i] != 0) return kE2BIG;
    }
    done += n;
  }
  if ((a.flags & ~kKnownFlags) != 0 || (a.flags & (CLONE_DETACHED | (CSIGNAL & ~CLONE_NEWTIME))) != 0) return kEINVAL;
  if ((a.exit_signal & ~uint64_t{CSIGNAL}) != 0 || a.exit_signal > static_cast<uint64_t>(abi::kSignalCount))
    return kEINVAL;
  if ((a.flags & (CLONE_THREAD | CLONE_PARENT)) != 0 && a.exit_signal != 0) return kEINVAL;
  if ((a.stack == 0) != (a.stack_size == 0)) return kEINVAL;
  if (a.set_tid_size > kMaxSetTid || (a.set_tid == 0) != (a.set_tid_size == 0)) return kEINVAL;
  CloneRequest r;
  r.flags = a.flags;
  r.exit_signal = static_cast<int>(a.exit_signal);
  if (a.stack != 0 && __builtin_add_overflow(a.stack, a.stack_size, &r.stack)) return kEINVAL;
  r.tls = a.tls;
  r.parent_tid = a.parent_tid;
  r.child_tid = a.child_tid;
  r.pidfd = a.pidfd;
  if (a.set_tid_size != 0) r.set_tid = TRY(UserIn<int32_t>(a.set_tid).ReadArray(memory, a.set_tid_size));
  return TRY(CloneTask(t, r));
}

}  // namespace moat
