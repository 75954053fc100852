// A child process that the test traces with ptrace(2).
#ifndef MOAT_TESTS_GUEST_SUPPORT_TRACEE_H_
#define MOAT_TESTS_GUEST_SUPPORT_TRACEE_H_

#include <signal.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "tests/guest/support/child.h"

namespace moat::guest {

// What waitpid(2) says of stops.
constexpr int Stopped(int signal) { return signal << 8 | 0x7f; }
constexpr int EventStop(int event, int signal = SIGTRAP) { return Stopped(event << 8 | signal); }
constexpr int kCallStop = Stopped(SIGTRAP | 0x80);
constexpr int Exited(int code) { return code << 8; }

// The C library's wrapper has its own ideas of types and results.
inline long Ptrace(long request, pid_t pid, uintptr_t addr = 0, uintptr_t data = 0) {
  return syscall(SYS_ptrace, request, pid, addr, data);
}
inline long Ptrace(long request, pid_t pid, uintptr_t addr, const void* data) {
  return Ptrace(request, pid, addr, reinterpret_cast<uintptr_t>(data));
}
inline uintptr_t Address(const volatile void* p) { return reinterpret_cast<uintptr_t>(p); }

// The next report of `pid`, thread or process; -1 when there is none.
inline int NextStatus(pid_t pid, int options = __WALL) {
  int status = -1;
  const pid_t got = waitpid(pid, &status, options);
  return got == pid ? status : -1;
}

// A child that waits in its first stop when the constructor returns: of PTRACE_TRACEME and a SIGSTOP to itself, with
// `options` set. Killed and reaped when the object dies.
class Tracee {
 public:
  explicit Tracee(const std::function<void()>& body, long options = PTRACE_O_TRACESYSGOOD) {
    pid_ = Spawn([&] {
      ASSERT_OK(Ptrace(PTRACE_TRACEME, 0));
      raise(SIGSTOP);
      body();
    });
    EXPECT_EQ(Wait(), Stopped(SIGSTOP));
    EXPECT_OK(Ptrace(PTRACE_SETOPTIONS, pid_, 0, static_cast<uintptr_t>(options | PTRACE_O_EXITKILL)));
  }
  // One that the test attaches to as it likes.
  explicit Tracee(pid_t pid) : pid_(pid) {}
  Tracee(const Tracee&) = delete;
  ~Tracee() {
    if (over_) return;
    kill(pid_, SIGKILL);
    int status;
    while (waitpid(pid_, &status, __WALL) == pid_ && WIFSTOPPED(status)) {
    }
  }

  pid_t pid() const { return pid_; }
  int Wait() {
    const int status = NextStatus(pid_);
    if (status == -1 || WIFEXITED(status) || WIFSIGNALED(status)) over_ = true;
    return status;
  }
  long Request(long request, uintptr_t addr = 0, uintptr_t data = 0) const { return Ptrace(request, pid_, addr, data); }
  long Request(long request, uintptr_t addr, const void* data) const { return Ptrace(request, pid_, addr, data); }
  // Lets it go on and waits for what it reports next.
  int Go(long request = PTRACE_CONT, int signal = 0) {
    EXPECT_OK(Request(request, 0, static_cast<uintptr_t>(signal)));
    return Wait();
  }
  user_regs_struct Regs() const {
    user_regs_struct regs = {};
    EXPECT_OK(Request(PTRACE_GETREGS, 0, &regs));
    return regs;
  }
  void SetRegs(const user_regs_struct& regs) const { EXPECT_OK(Request(PTRACE_SETREGS, 0, &regs)); }
  // On to the stop before the next call `number`.
  testing::AssertionResult GoToCall(long number) {
    for (int i = 0; i < kPatience; ++i) {
      const int status = Go(PTRACE_SYSCALL);
      if (status != kCallStop) return testing::AssertionFailure() << "status " << std::hex << status;
      if (static_cast<long>(Regs().orig_rax) == number) return testing::AssertionSuccess();
      if (Go(PTRACE_SYSCALL) != kCallStop) return testing::AssertionFailure() << "no stop behind a call";
    }
    return testing::AssertionFailure() << "no such call";
  }
  siginfo_t Info() const {
    siginfo_t info = {};
    EXPECT_OK(Request(PTRACE_GETSIGINFO, 0, &info));
    return info;
  }
  unsigned long Message() const {
    unsigned long message = ~0ul;
    EXPECT_OK(Request(PTRACE_GETEVENTMSG, 0, &message));
    return message;
  }
  long Peek(const volatile void* at) const {
    long word = -1;
    EXPECT_OK(Request(PTRACE_PEEKDATA, Address(at), &word));
    return word;
  }

 private:
  static constexpr int kPatience = 2000;
  pid_t pid_;
  bool over_ = false;
};

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_TRACEE_H_
