#include "platform/stub/zygote.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "platform/stub/layout.h"

namespace moat::stub {
namespace {

// In the child: a copy of the sentry that is about to throw everything away. Only plain host calls.
[[noreturn]] void BecomeZygote(const sock_fprog* filter) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "moat-zygote");
  // Stubs are seized by unprivileged threads of the sentry: being dumpable is what permits it.
  prctl(PR_SET_DUMPABLE, 1);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; ++s) sigaction(s, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &action, nullptr);  // stubs are reaped by nobody
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // libc registered a restartable-sequence area, which the kernel would write to after it is unmapped.
  if (__rseq_size != 0) {
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
  }
  void* copy = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) _exit(1);
  memcpy(copy, Trampoline().bytes, Trampoline().size);
  if (mprotect(copy, 4096, PROT_READ | PROT_EXEC) != 0) _exit(1);
  if (filter != nullptr) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(1);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter) != 0) _exit(1);
  }
  reinterpret_cast<void (*)()>(reinterpret_cast<uint64_t>(copy) + TrampolineEntries().zygote - kText)();
  __builtin_unreachable();
}

}  // namespace

Result<pid_t> StartZygote(const sock_fprog* filter) {
  long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) return HostErrno();
  if (pid == 0) BecomeZygote(filter);
  return static_cast<pid_t>(pid);
}

}  // namespace moat::stub
