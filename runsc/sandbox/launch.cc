#include "runsc/sandbox/launch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runsc/boot/sentry_main.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// Signals and dispositions that the supervisor set up are its own.
void ResetSignals() {
  for (int signo = 1; signo < NSIG; ++signo) signal(signo, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  // The caller's RLIMIT_FSIZE is the sandbox's, which answers for it; a host write past it must not end the sentry.
  signal(SIGXFSZ, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void Fail(Channel& channel, const absl::Status& status) {
  [[maybe_unused]] auto sent = channel.Send(MessageKind::kFailed, ExitCodeOf(status), Text(status));
  _exit(1);
}

// Puts the guest's stdio at 0, 1, 2 whatever numbers it has now.
absl::Status PlaceStdio(const int (&stdio)[3]) {
  int safe[3];
  for (int i = 0; i < 3; ++i) {
    safe[i] = fcntl(stdio[i], F_DUPFD, 3);
    if (safe[i] < 0) return HostFailed("duplicate stdio descriptor {}", i);
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(safe[i], i) < 0) return HostFailed("place stdio descriptor {}", i);
    close(safe[i]);
  }
  return absl::OkStatus();
}

// The debug log gets its fixed number.
void PlaceLog(BootConfig& boot) {
  if (boot.log_fd >= 0) boot.log_fd = dup2(boot.log_fd, kLogFd);
}

void GoferMain(Channel channel, LaunchPlan& plan, std::vector<ScopedFd>& connections) {
  ResetSignals();
  GoferConfig config;
  ScopedFd proc_self_fd;
  const Confinement confinement{.name = "moat-gofer",
                                .keep_ids = true,
                                .capabilities = ~uint64_t{0},
                                .proc_self_fd = &proc_self_fd,
                                .descriptors = 16384};
  if (absl::Status s = PlaceStdio(plan.stdio); !s.ok()) Fail(channel, s);
  PlaceLog(plan.boot);
  std::vector<int> keep = {0, 1, 2, plan.boot.log_fd};
  for (ScopedFd& c : connections) {
    keep.push_back(c.get());
    config.connections.push_back(std::move(c));
  }
  for (GoferMount& m : plan.gofer_mounts) {
    keep.push_back(m.root.get());
    config.mounts.push_back(std::move(m));
  }
  if (absl::Status s = Confine(confinement, channel, keep); !s.ok()) Fail(channel, s);
  config.proc_self_fd = std::move(proc_self_fd);
  config.log_fd = plan.boot.log_fd;
  _exit(RunGofer(std::move(config)));
}

void SentryMain(Channel channel, LaunchPlan& plan, std::vector<ScopedFd>& connections) {
  ResetSignals();
  ScopedFd memory;
  const Confinement confinement{.name = "moat-sentry", .memory = &memory, .descriptors = 4096};
  if (absl::Status s = PlaceStdio(plan.stdio); !s.ok()) Fail(channel, s);
  PlaceLog(plan.boot);
  std::vector<int> keep = {0, 1, 2, plan.boot.log_fd};
  for (ScopedFd& c : connections) {
    keep.push_back(c.get());
    plan.boot.gofer_fds.push_back(c.Release());
  }
  plan.gofer_mounts.clear();  // first: Confine closes and reuses their numbers
  if (absl::Status s = Confine(confinement, channel, keep); !s.ok()) Fail(channel, s);
  plan.boot.memory_fd = memory.Release();
  RunSentry(std::move(plan.boot), std::move(channel));
}

// An empty network namespace for sentry and gofer together, whom it would cost half a millisecond each to make their
// own. It belongs to the caller's user namespace: no capability that they have counts in it. The caller is in it until
// Leave, or until the object dies. Where the caller may not make one (it is not root), they have their own.
class SharedNetwork {
 public:
  SharedNetwork() : home_(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = home_.valid() && unshare(CLONE_NEWNET) == 0;
  }
  ~SharedNetwork() { Leave().IgnoreError(); }
  bool entered() const { return entered_; }
  absl::Status Leave() {
    if (std::exchange(entered_, false) && setns(home_.get(), CLONE_NEWNET) != 0)
      return HostFailed("return to the network namespace");
    return absl::OkStatus();
  }

 private:
  ScopedFd home_;
  bool entered_;
};

void Reap(ConfinedChild& child) {
  if (child.pid <= 0) return;
  while (waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  child.pid = -1;
}

}  // namespace

SandboxProcesses::~SandboxProcesses() {
  // Both at once: each takes half a millisecond to die.
  for (const ConfinedChild* child : {&sentry, &gofer}) {
    if (child->pid > 0) kill(child->pid, SIGKILL);
  }
  Reap(sentry);
  Reap(gofer);
}

absl::StatusOr<SandboxProcesses> Launch(LaunchPlan plan) {
  std::vector<ScopedFd> client, server;
  for (int i = 0; i < std::max(1, plan.boot.cpus); ++i) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return HostFailed("socketpair");
    client.emplace_back(fds[0]);
    server.emplace_back(fds[1]);
  }
  fflush(nullptr);
  SandboxProcesses processes;
  SharedNetwork network;
  // The sentry first: it has more to do before it needs the gofer than the gofer before it can serve.
  const Confinement sentry{.name = "moat-sentry", .keep_network = network.entered()};
  ASSIGN_OR_RETURN(processes.sentry, StartConfined(sentry, [&](Channel channel) {
                     server.clear();
                     SentryMain(std::move(channel), plan, client);
                   }));
  client.clear();
  const Confinement gofer{.name = "moat-gofer", .keep_ids = true, .keep_network = network.entered()};
  ASSIGN_OR_RETURN(processes.gofer, StartConfined(gofer, [&](Channel channel) {
                     processes.sentry = ConfinedChild();
                     GoferMain(std::move(channel), plan, server);
                   }));
  RETURN_IF_ERROR(network.Leave());
  return processes;
}

}  // namespace moat
