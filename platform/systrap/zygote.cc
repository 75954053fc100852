#include "platform/systrap/zygote.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/systrap/layout.h"

namespace moat::systrap_platform {
namespace {

constexpr unsigned long kSaRestorer = 0x04000000;
struct KernelSigAction {
  uint64_t handler;
  unsigned long flags;
  uint64_t restorer;
  uint64_t mask;
};

// The faults of guest code, the calls that come by way of the handler, and the kick.
constexpr int kHandled[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGURG};

// In the child: a copy of the sentry that is about to throw everything away. Only plain host calls.
[[noreturn]] void BecomeZygote(const sock_fprog* filter, int mailbox_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "moat-zygote");
  prctl(PR_SET_DUMPABLE, 0);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; ++s) sigaction(s, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &action, nullptr);  // stubs are reaped by nobody
  // Inherited by the stubs. Not through libc, whose restorer would be in memory that is about to go.
  for (int s : kHandled) {
    KernelSigAction handler = {HandlerAddress(), SA_SIGINFO | SA_ONSTACK | SA_RESTART | kSaRestorer, HandlerAddress(),
                               ~uint64_t{0}};
    if (syscall(SYS_rt_sigaction, s, &handler, nullptr, sizeof handler.mask) != 0) _exit(1);
  }
  // Inherited too: a guest thread takes signals only from its first frame on, not in the trampoline before that.
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  // libc registered a restartable-sequence area, which the kernel would write to after it is unmapped.
  if (__rseq_size != 0) {
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
  }
  void* image = mmap(nullptr, SYSTRAP_IMAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (image == MAP_FAILED) _exit(1);
  WriteImage(static_cast<std::byte*>(image));
  if (mprotect(image, SYSTRAP_IMAGE_SIZE, PROT_READ | PROT_EXEC) != 0) _exit(1);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(1);
  if (filter != nullptr && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter) != 0) _exit(1);
  auto entry = reinterpret_cast<void (*)(int, uint64_t)>(reinterpret_cast<uint64_t>(image) + ZygoteOffset());
  entry(mailbox_fd, 0);
  __builtin_unreachable();
}

}  // namespace

Result<pid_t> StartZygote(const sock_fprog* filter, int mailbox_fd) {
  long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) return HostErrno();
  if (pid == 0) BecomeZygote(filter, mailbox_fd);
  return static_cast<pid_t>(pid);
}

}  // namespace moat::systrap_platform
