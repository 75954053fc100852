#include "runsc/boot/control.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "fs/vfs/vfs.h"
#include "platform/fiber/thread.h"
#include "runsc/boot/guest_job.h"
#include "runsc/boot/process_spec.h"
#include "runsc/boot/start_hooks.h"
#include "runsc/error/error.h"
#include "runsc/oci/parse.h"

namespace moat {
namespace {

// Text and exit code of a process that could not be started, with the texts that managers look for.
std::string ExecFailure(const std::string& program, Errno e, bool search) {
  if (e == kENOENT && search) return fmt::format("exec: \"{}\": executable file not found in $PATH", program);
  return fmt::format("exec: \"{}\": {}", program, ErrnoText(e));
}

// The connection of an exec'd process: received from by its client thread, sent to by others.
struct ExecClient {
  Channel channel;
  Mutex send_mu{LockRank::kControl};
  void Send(MessageKind kind, int32_t number, std::string_view text) {
    MutexLock lock(send_mu);
    [[maybe_unused]] auto sent = channel.Send(kind, number, text);
  }
};

class ControlServer {
 public:
  ControlServer(ContainerState& state, Channel supervisor)
      : state_(state),
        supervisor_(std::move(supervisor)),
        job_(*state.kernel, JobFlags(state.config), state.stdio.tty) {}

  [[noreturn]] void Run() {
    if (state_.config.waits_for_hooks) {
      Report(MessageKind::kBooted, 0, {});
      Result<Message> order = supervisor_.Receive();
      if (!order.ok() || order->kind != MessageKind::kLoad) _exit(1);
    }
    Result<RefPtr<ThreadGroup>> init = StartInit();
    if (!init.ok()) {
      Report(MessageKind::kFailed, ExecExitCode(init.error()), StartFailure(state_.config.process, init.error()));
      _exit(1);
    }
    init_ = *std::move(init);
    job_.Begin(init_);
    StartThread("init-waiter", [this] { WaitForInit(); });
    if (job_.reports_stops()) {
      StartThread("stop-reporter", [this] {
        job_.ReportStops([this](int signo, const std::string& text) { Report(MessageKind::kStopped, signo, text); });
      });
    }
    if (state_.zygote.valid()) StartThread("zygote-watch", [this] { WatchZygote(); });
    Report(MessageKind::kReady, 0, {});
    for (;;) {
      Result<Message> message = supervisor_.Receive();
      if (!message.ok()) _exit(1);  // the supervisor is gone: nobody stands for this container any more
      HandleOrder(*std::move(message));
    }
  }

 private:
  static int JobFlags(const BootConfig& config) {
    return (config.outside_job ? kExecJob : 0) | (config.orphaned_job ? kExecOrphaned : 0) |
           (config.in_background ? kExecBackground : 0) | (config.leads_session ? kExecLeader : 0);
  }

  void Report(MessageKind kind, int32_t number, std::string_view text) {
    MutexLock lock(send_mu_);
    [[maybe_unused]] auto sent = supervisor_.Send(kind, number, text);
  }

  static void StartThread(std::string_view name, absl::AnyInvocable<void()> fn) {
    Result<HostThread> thread = HostThread::Start(name, std::move(fn));
    if (!thread.ok()) Panic(__FILE__, __LINE__, "cannot start a control thread");
    thread->Detach();
  }

  // The working directory comes first, as in the kernel: an error there is not the program's.
  std::string StartFailure(const oci::Process& process, Errno e) {
    RefPtr<const Credentials> cred = Credentials::CreateRoot(state_.kernel->root_user_ns());
    VfsPath root = state_.mounts->root();
    VfsContext ctx{.cred = *cred, .mounts = *state_.mounts, .root = root, .cwd = root};
    Result<VfsPath> cwd = vfs::Resolve(ctx, root, process.cwd, {.directory_only = true});
    if (!cwd.ok())
      return fmt::format("working directory \"{}\" in the sandbox: {}", process.cwd, ErrnoText(cwd.error()));
    const std::string& program = process.args.front();
    return ExecFailure(program, e, program.find('/') == program.npos);
  }

  ProcessSpec Spec(const oci::Process& process, const HostStdio& stdio) {
    ProcessSpec spec = MakeProcessSpec(*state_.kernel, process, stdio.files);
    spec.mount_ns = state_.mounts;
    spec.pid_ns = state_.pid_ns;
    spec.uts_ns = state_.uts_ns;
    spec.ipc_ns = state_.ipc_ns;
    spec.tty = stdio.tty;
    return spec;
  }

  Result<RefPtr<ThreadGroup>> StartInit() {
    ProcessSpec spec = Spec(state_.config.process, state_.stdio);
    spec.gate = &gate_;
    spec.protected_init = state_.config.protected_init;
    spec.outside_job = job_.for_process();
    Result<RefPtr<ThreadGroup>> init = state_.kernel->CreateProcess(spec);
    state_.stdio.files.clear();  // the guest's descriptors alone keep them open
    return init;
  }

  void WaitForInit() {
    int status = init_->WaitForExit();
    // The rest of the pid namespace dies with its init; their files flush before the process ends.
    Report(MessageKind::kExited, status, {});
    _exit(0);
  }

  // A guest that waits inside of the sentry would not notice that its stub is gone, and no process can start any more.
  void WatchZygote() {
    pollfd p = {state_.zygote.get(), POLLIN, 0};
    while (ppoll(&p, 1, nullptr, nullptr) <= 0) {
    }
    Report(MessageKind::kFailed, 1, "the sandbox ends: the process that its guest processes are made from was killed");
    _exit(1);
  }

  void HandleOrder(Message message) {
    switch (message.kind) {
      case MessageKind::kStart:
        if (state_.config.start_hooks.empty()) {
          gate_.Open();
        } else {
          // On a thread of its own: signals for the container must get through while its hooks run.
          StartThread("start-hooks", [this] {
            Start([this](const absl::Status& s) {
              if (!s.ok()) Report(MessageKind::kFailed, 1, Text(s));
            });
          });
        }
        break;
      case MessageKind::kSignal:
      case MessageKind::kGround:
        job_.HandleOrder(message);
        if (message.kind == MessageKind::kSignal && message.number == SIGKILL) gate_.Open();
        break;
      case MessageKind::kClient:
        if (message.fds.empty()) break;
        StartThread("client", [this, socket = std::make_shared<ScopedFd>(std::move(message.fds[0]))] {
          ServeClient(Channel(std::move(*socket)));
        });
        break;
      default:
        MOAT_LOG(kWarning, "control: unknown order {}", static_cast<int>(message.kind));
    }
  }

  // Runs the hooks, then init. A container whose hooks fail is stopped, once that is told.
  void Start(absl::FunctionRef<void(const absl::Status&)> tell) {
    absl::Status hooks = RunStartHooks(
        state_, [this](const oci::Process& process, const HostStdio& stdio) { return Spec(process, stdio); });
    if (hooks.ok()) gate_.Open();
    tell(hooks);
    if (hooks.ok()) return;
    SendToInit(SIGKILL);
    gate_.Open();
  }

  void SendToInit(int signo) {
    // From outside of its pid namespace: SIGKILL and SIGSTOP reach even an init without handlers.
    [[maybe_unused]] auto sent = init_->SendSignal(UserSigInfo(signo, SI_USER, 0, 0), /*from_outside=*/true);
    if (signo == SIGKILL) gate_.Open();
  }

  // --- clients ---
  void ServeClient(Channel client) {
    for (;;) {
      Result<Message> request = client.Receive();
      if (!request.ok()) return;
      switch (request->kind) {
        case MessageKind::kStart:
          Start([&](const absl::Status& s) {
            Answer(client, s.ok() ? MessageKind::kOk : MessageKind::kError, s.ok() ? 0 : 1, Text(s));
          });
          break;
        case MessageKind::kSignalInit:
          SignalFromClient(client, *request);
          break;
        case MessageKind::kProcesses:
          Answer(client, MessageKind::kOk, 0, ProcessList());
          break;
        case MessageKind::kExec:
          Exec(std::move(client), *std::move(request));
          return;
        default:
          Answer(client, MessageKind::kError, 1, "unknown request");
      }
    }
  }

  static void Answer(Channel& client, MessageKind kind, int32_t number, std::string_view text) {
    [[maybe_unused]] auto sent = client.Send(kind, number, text);
  }

  void SignalFromClient(Channel& client, const Message& request) {
    if (!ValidSignal(request.number)) {
      Answer(client, MessageKind::kError, 1, fmt::format("invalid signal {}", request.number));
      return;
    }
    if (request.text == "all") {
      state_.kernel->SendSignalToAll(request.number, *state_.pid_ns);
      if (request.number == SIGKILL) gate_.Open();
    } else {
      SendToInit(request.number);
    }
    Answer(client, MessageKind::kOk, 0, {});
  }

  std::string ProcessList() {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const RefPtr<ThreadGroup>& g : state_.kernel->ThreadGroups(*state_.pid_ns)) {
      RefPtr<Task> leader = g->leader();
      if (!leader) continue;
      rows.push_back({{"pid", g->IdIn(*state_.pid_ns)},
                      {"ppid", g->ParentIdIn(*state_.pid_ns)},
                      {"uid", leader->credentials()->uid},
                      {"state", std::string(1, leader->StateLetter())},
                      {"comm", leader->comm()}});
    }
    return rows.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  Result<RefPtr<ThreadGroup>> StartExec(const oci::Process& process, const HostStdio& stdio, GuestJob& job) {
    ProcessSpec spec = Spec(process, stdio);
    spec.outside_job = job.for_process();
    return state_.kernel->CreateProcess(spec);
  }

  void Exec(Channel client, Message request) {
    std::vector<std::string> warnings;
    absl::StatusOr<oci::Process> process = oci::ParseProcess(request.text, warnings);
    if (!process.ok()) return Answer(client, MessageKind::kError, 255, Text(process.status()));
    Result<HostStdio> stdio = WrapHostStdio(std::move(request.fds), state_.gofer);
    if (!stdio.ok()) return Answer(client, MessageKind::kError, 255, "stdio: " + ErrnoText(stdio.error()));
    auto job = std::make_shared<GuestJob>(*state_.kernel, request.number, stdio->tty);
    Result<RefPtr<ThreadGroup>> group = StartExec(*process, *stdio, *job);
    if (!group.ok()) {
      return Answer(client, MessageKind::kError, ExecExitCode(group.error()), StartFailure(*process, group.error()));
    }
    stdio->files.clear();
    job->Begin(*group);
    Answer(client, MessageKind::kOk, 0, {});
    auto shared = std::make_shared<ExecClient>();
    shared->channel = std::move(client);
    if (job->reports_stops()) {
      StartThread("exec-stops", [job, shared] {
        job->ReportStops([&](int signo, const std::string& text) { shared->Send(MessageKind::kStopped, signo, text); });
      });
    }
    StartThread("exec-waiter", [this, g = *group, shared, job] {
      int status = g->WaitForExit();
      g->Reap();
      job->End();
      // The gofer's copies of its stdio go now, not with some later request: who reads the other end waits for them.
      state_.gofer->FlushForgotten();
      shared->Send(MessageKind::kExited, status, {});
    });
    // Until the client goes: its death is the process's.
    for (;;) {
      Result<Message> order = shared->channel.Receive();
      if (!order.ok()) break;
      job->HandleOrder(*order);
    }
    if (!(*group)->IsZombie()) [[maybe_unused]]
      auto done = (*group)->SendSignal(UserSigInfo(SIGKILL, SI_USER, 0, 0), true);
  }

  ContainerState& state_;
  Channel supervisor_;  // received on by the main thread alone
  Mutex send_mu_{LockRank::kControl};
  StartGate gate_;
  GuestJob job_;  // of init
  RefPtr<ThreadGroup> init_;
};

}  // namespace

void ServeContainer(ContainerState& state, Channel supervisor) {
  static ControlServer* server = new ControlServer(state, std::move(supervisor));
  server->Run();
}

}  // namespace moat
