#include "runsc/sandbox/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/base/own_image.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

std::string HowEnded(const char* name, int status) {
  if (WIFSIGNALED(status)) return fmt::format("the {} was killed by signal {}", name, WTERMSIG(status));
  return fmt::format("the {} ended with status {}", name, WEXITSTATUS(status));
}

}  // namespace

Supervisor::Supervisor(SandboxProcesses processes, Options options, StandIn stand_in)
    : processes_(std::move(processes)), options_(std::move(options)), stand_in_(std::move(stand_in)) {}

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(LaunchPlan plan, Options options) {
  ASSIGN_OR_RETURN(StandIn stand_in, StandIn::Create(options.job));
  plan.boot.outside_job = stand_in.is_job();
  plan.boot.orphaned_job = stand_in.is_orphaned();
  plan.boot.in_background = stand_in.InBackground();
  ASSIGN_OR_RETURN(SandboxProcesses processes, Launch(std::move(plan)));
  return std::unique_ptr<Supervisor>(new Supervisor(std::move(processes), std::move(options), std::move(stand_in)));
}

absl::Status Supervisor::WaitReady(absl::FunctionRef<absl::Status()> on_boot) {
  while (!ready_ && failure_.ok()) {
    pollfd fds[] = {{processes_.sentry.channel.fd(), POLLIN, 0}, {processes_.gofer.pidfd.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return HostFailed("poll");
    }
    if (fds[0].revents != 0) {
      Result<Message> message = processes_.sentry.channel.Receive();
      if (!message.ok()) {
        WaitForSentry();
        return Failed("the sandbox ended while it booted");
      }
      HandleMessage(*std::move(message));
      if (std::exchange(booted_, false)) {
        RETURN_IF_ERROR(on_boot());
        if (!processes_.sentry.channel.Send(MessageKind::kLoad).ok())
          return Failed("the sandbox ended while it booted");
      }
    } else if (fds[1].revents != 0) {
      Result<Message> why = processes_.gofer.channel.Receive();
      return why.ok() && why->kind == MessageKind::kFailed ? Failed("the gofer cannot start: {}", why->text)
                                                           : Failed("the gofer ended while the sandbox booted");
    }
  }
  return failure_;
}

absl::Status Supervisor::Start() {
  if (!processes_.sentry.channel.Send(MessageKind::kStart).ok()) return Failed("the sandbox ended before its start");
  return absl::OkStatus();
}

void Supervisor::HandleMessage(Message message) {
  switch (message.kind) {
    case MessageKind::kBooted:
      booted_ = true;
      break;
    case MessageKind::kReady:
      ready_ = true;
      break;
    case MessageKind::kFailed:
      failure_ = WithExitCode(absl::UnknownError(message.text), message.number);
      break;
    case MessageKind::kExited:
      exit_status_ = message.number;
      exited_ = true;
      break;
    case MessageKind::kStopped:
      stand_in_.GuestStopped(message, processes_.sentry.channel);
      break;
    default:
      break;
  }
}

void Supervisor::AcceptClient() {
  ScopedFd client(accept4(options_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client.valid()) return;
  // The folder of the socket is 0700; this refuses descriptors that were passed on.
  ucred peer = {};
  socklen_t size = sizeof peer;
  if (getsockopt(client.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
  if (peer.uid != 0 && peer.uid != geteuid()) return;
  int fd = client.get();
  [[maybe_unused]] auto sent = processes_.sentry.channel.Send(MessageKind::kClient, 0, {}, {&fd, 1});
}

void Supervisor::ReapEnded() {
  for (ConfinedChild* child : {&processes_.sentry, &processes_.gofer}) {
    int status;
    if (child->pid <= 0 || waitpid(child->pid, &status, WNOHANG) != child->pid) continue;
    child->pid = -1;
    died_ = true;
    // The sentry's end closes the gofer's connections: it leaves with 0 then, which explains nothing.
    bool sentry = child == &processes_.sentry;
    if (!exited_ && failure_.ok() && !(WIFEXITED(status) && WEXITSTATUS(status) == 0 && !sentry))
      fprintf(stderr, "runsc: %s\n", HowEnded(sentry ? "sentry" : "gofer", status).c_str());
  }
}

// Its end of the channel is closed, which only death does.
void Supervisor::WaitForSentry() {
  kill(processes_.sentry.pid, SIGKILL);
  siginfo_t info = {};
  waitid(P_PID, processes_.sentry.pid, &info, WEXITED | WNOWAIT);
  ReapEnded();
}

int Supervisor::Run() {
  DropOwnCode();
  while (!exited_ && !died_) {
    pollfd fds[] = {{processes_.sentry.channel.fd(), POLLIN, 0},
                    {stand_in_.fd(), POLLIN, 0},
                    {processes_.gofer.pidfd.get(), POLLIN, 0},
                    {processes_.sentry.pidfd.get(), POLLIN, 0},
                    {options_.listener.get(), POLLIN, 0}};
    if (poll(fds, options_.listener.valid() ? 5 : 4, -1) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    // Messages first: the sentry reports how init ended, then ends itself.
    if (fds[0].revents != 0) {
      Result<Message> message = processes_.sentry.channel.Receive();
      if (message.ok()) {
        HandleMessage(*std::move(message));
        continue;
      }
      WaitForSentry();
      break;
    }
    if (fds[1].revents != 0) stand_in_.ForwardSignals(processes_.sentry.channel);
    if (fds[2].revents != 0 || fds[3].revents != 0) ReapEnded();
    if (options_.listener.valid() && fds[4].revents != 0) AcceptClient();
  }
  processes_ = SandboxProcesses();
  if (!exited_ && !failure_.ok()) fprintf(stderr, "runsc: %s\n", Text(failure_).c_str());
  return exited_ ? exit_status_ : SIGKILL;
}

}  // namespace moat
