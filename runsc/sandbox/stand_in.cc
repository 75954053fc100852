#include "runsc/sandbox/stand_in.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "runsc/error/error.h"

namespace moat {
namespace {

// Everything that can be caught is the guest's; faults stay ours.
sigset_t ForwardedSignals() {
  sigset_t set;
  sigfillset(&set);
  for (int signo : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGKILL, SIGSTOP})
    sigdelset(&set, signo);
  return set;
}

// All 0 when the process is gone.
struct Relations {
  pid_t parent = 0, group = 0, session = 0;
};
Relations RelationsOf(pid_t pid) {
  Relations r;
  FILE* f = fopen(fmt::format("/proc/{}/stat", pid).c_str(), "re");
  if (f == nullptr) return r;
  char text[512];
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = '\0';
  const char* at = strrchr(text, ')');  // the name before it may hold anything
  char state;
  if (at == nullptr || sscanf(at + 1, " %c %d %d %d", &state, &r.parent, &r.group, &r.session) != 4) return {};
  return r;
}

bool IsOrphaned() {
  const pid_t group = getpgrp(), session = getsid(0);
  // Processes of our own group between us and the shell: env(1), sudo(8), timeout(1).
  Relations r{getppid(), group, session};
  for (int depth = 0; depth < 64 && r.parent > 1; ++depth) {
    r = RelationsOf(r.parent);
    if (r.group != group) return r.session != session;
  }
  return true;
}

bool IsPending(int signo) {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  return sigismember(&pending, signo) == 1;
}

// Stops the calling process by the default action of `signo`. The kernel ignores all but SIGSTOP in an orphaned
// process group. True when it stopped: it goes on with SIGCONT pending.
bool StopSelf(int signo) {
  if (signo == SIGSTOP) {
    kill(getpid(), SIGSTOP);
  } else {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signo);
    kill(getpid(), signo);
    sigprocmask(SIG_UNBLOCK, &one, nullptr);
    sigprocmask(SIG_BLOCK, &one, nullptr);
  }
  return IsPending(SIGCONT);
}

}  // namespace

StandIn::StandIn(ScopedFd signals, bool job) : signals_(std::move(signals)), job_(job), orphaned_(IsOrphaned()) {
  for (int fd : {0, 1, 2}) {
    if (terminal_ < 0 && tcgetpgrp(fd) >= 0) terminal_ = fd;
  }
  told_background_ = InBackground();
}

absl::StatusOr<StandIn> StandIn::Create(bool job) {
  sigset_t set = ForwardedSignals();
  sigprocmask(SIG_SETMASK, &set, nullptr);
  // A disposition of "ignore" that the caller left us would swallow what is the guest's to decide, and SIGCHLD.
  for (int signo = 1; signo < NSIG; ++signo) {
    if (sigismember(&set, signo) == 1) signal(signo, SIG_DFL);
  }
  ScopedFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) return HostFailed("signalfd");
  return StandIn(std::move(signals), job);
}

bool StandIn::InBackground() const {
  if (terminal_ < 0) return false;
  const pid_t foreground = tcgetpgrp(terminal_);
  return foreground >= 0 && foreground != getpgrp();
}

void StandIn::TellGround(Channel& guest) {
  if (InBackground() == told_background_) return;
  told_background_ = !told_background_;
  [[maybe_unused]] auto sent = guest.Send(MessageKind::kGround, told_background_ ? 1 : 0);
}

void StandIn::Continue(Channel& guest, bool from_terminal) {
  // A shell moves the terminal's foreground before it continues a job.
  TellGround(guest);
  ++continues_;
  [[maybe_unused]] auto sent = guest.Send(MessageKind::kSignal, SIGCONT, from_terminal ? "terminal" : "");
}

bool StandIn::ForwardSignals(Channel& guest) {
  signalfd_siginfo info;
  bool child = false;
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    const int signo = static_cast<int>(info.ssi_signo);
    // The terminal's own signals are for its foreground group, others for one process.
    const bool from_terminal = info.ssi_code == SI_KERNEL;
    if (signo == SIGCHLD) {
      child = true;
    } else if (signo == SIGCONT) {
      Continue(guest, from_terminal);
    } else {
      [[maybe_unused]] auto sent = guest.Send(MessageKind::kSignal, signo, from_terminal ? "terminal" : "");
    }
  }
  return child;
}

void StandIn::GuestStopped(const Message& message, Channel& guest) {
  if (!job_) return;
  // Who continues us may have been faster than the report; a SIGCONT that is read later would be lost to the stop.
  const bool child = ForwardSignals(guest);
  if (child) kill(getpid(), SIGCHLD);  // read again by the owner of the children
  if (message.text != std::to_string(continues_)) return;
  const int signo = message.number;
  // A shell gives a running background job the terminal without a word: the guest's process waits for us to look.
  const bool for_terminal = signo == SIGTTIN || signo == SIGTTOU;
  if (for_terminal && told_background_ && !InBackground()) {
    Continue(guest, false);
  } else if (!StopSelf(signo)) {
    Continue(guest, false);
  }
}

void EndLike(int wait_status) {
  fflush(nullptr);
  if (!WIFSIGNALED(wait_status)) _exit(WEXITSTATUS(wait_status));
  int signo = WTERMSIG(wait_status);
  rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);  // the core would be runsc's, not the guest's
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  signal(signo, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signo);
  kill(getpid(), signo);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  _exit(128 + signo);
}

}  // namespace moat
