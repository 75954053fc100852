#include "runsc/container/create.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/container/container_mounts.h"
#include "runsc/container/container_plan.h"
#include "runsc/container/hooks.h"
#include "runsc/error/error.h"
#include "runsc/oci/parse.h"

namespace moat {
namespace {

// The hooks that run once the sandbox stands and before its init is loaded.
absl::Status RunCreateHooks(const oci::Hooks& hooks, const ContainerRecord& record, ContainerMounts& mounts) {
  std::string json = StateJson(record, "creating");
  RETURN_IF_ERROR(RunHooks(hooks.prestart, "prestart", json, record.bundle));
  RETURN_IF_ERROR(RunHooks(hooks.create_runtime, "createRuntime", json, record.bundle));
  return mounts.RunHooks(json, record.bundle);
}

void Warn(const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) fprintf(stderr, "runsc: warning: %s\n", w.c_str());
}

// A container that could not be created is destroyed, which its hooks hear of.
void RunPoststopHooks(const oci::Hooks& hooks, const ContainerRecord& record) {
  Warn(RunAllHooks(hooks.poststop, "poststop", StateJson(record, "stopped"), record.bundle));
}

// The sandbox up to its loaded init, with the create hooks on the way. `mounts` must live as long as the sandbox.
absl::StatusOr<std::unique_ptr<Supervisor>> Boot(LaunchPlan plan, Supervisor::Options options, const oci::Hooks& hooks,
                                                 const ContainerRecord& record, ContainerMounts& mounts) {
  if (!hooks.create_container.empty()) {
    ASSIGN_OR_RETURN(mounts, ContainerMounts::Create(hooks.create_container, plan.gofer_mounts));
  }
  ASSIGN_OR_RETURN(auto supervisor, Supervisor::Create(std::move(plan), std::move(options)));
  RETURN_IF_ERROR(supervisor->WaitReady([&] { return RunCreateHooks(hooks, record, mounts); }));
  return supervisor;
}

[[noreturn]] void SupervisorMain(StateDir& state, const ContainerRecord& made_by_parent, const oci::Hooks& hooks,
                                 LaunchPlan plan, ScopedFd listener, ScopedFd console, Channel command) {
  prctl(PR_SET_NAME, "runsc-init", 0, 0, 0);
  state.DetachFromParent();
  setsid();
  // The manager's end of the terminal reaches us by its signals: ^C, changes of its size, its hang-up.
  if (console.valid()) ioctl(console.get(), TIOCSCTTY, 0);
  ContainerRecord record = made_by_parent;
  record.SetProcess(getpid());
  ContainerMounts mounts;
  auto supervisor = Boot(std::move(plan), {.listener = std::move(listener), .job = false}, hooks, record, mounts);
  console.Reset();
  const bool ok = supervisor.ok();
  [[maybe_unused]] auto told =
      command.Send(ok ? MessageKind::kOk : MessageKind::kError, 0, ok ? "" : Text(supervisor.status()));
  // The command may be gone: nobody would ever know of this container.
  if (!ok || !command.Receive().ok()) {
    if (ok) supervisor->reset();
    _exit(1);
  }
  command = Channel();
  int status = (*supervisor)->Run();
  [[maybe_unused]] auto written = state.WriteFile("exit", std::to_string(status));
  supervisor->reset();
  EndLike(status);
}

absl::Status Publish(StateDir& state, const CreateOptions& options, const Bundle& bundle,
                     const ContainerRecord& record) {
  RETURN_IF_ERROR(state.WriteFile("config.json", bundle.config_text));
  if (!options.pid_file.empty()) RETURN_IF_ERROR(WritePidFile(options.pid_file, record.pid));
  return state.Save(record);
}

// Until the supervisor's container is ready, and published.
absl::Status AwaitSupervisor(Channel command, StateDir& state, const CreateOptions& options, const Bundle& bundle,
                             const ContainerRecord& record) {
  Result<Message> ready = command.Receive();
  if (!ready.ok()) return Failed("create the container: the supervisor ended early");
  if (ready->kind != MessageKind::kOk) return Failed("create the container: {}", ready->text);
  RETURN_IF_ERROR(Publish(state, options, bundle, record));
  if (!command.Send(MessageKind::kOk).ok()) return Failed("create the container: the supervisor ended early");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Bundle> ReadBundle(const std::string& path) {
  Bundle bundle;
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return HostFailed("--bundle={}", path);
  bundle.path = resolved;
  std::string file = bundle.path + "/config.json";
  ScopedFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return HostFailed("open {}", file);
  char buffer[16384];
  ssize_t n;
  while ((n = read(fd.get(), buffer, sizeof buffer)) > 0) bundle.config_text.append(buffer, n);
  if (n < 0) return HostFailed("read {}", file);
  absl::StatusOr<oci::Spec> spec = oci::ParseSpec(bundle.config_text, bundle.warnings);
  if (!spec.ok()) return Annotate(spec.status(), file);
  bundle.spec = *std::move(spec);
  return bundle;
}

absl::StatusOr<ContainerRecord> CreateContainer(StateDir& state, const CreateOptions& options, Bundle bundle,
                                                BootConfig boot) {
  ScopedFd console;
  ASSIGN_OR_RETURN(LaunchPlan plan, MakePlan(options, bundle, std::move(boot), console));
  ASSIGN_OR_RETURN(ScopedFd listener, state.Listen());
  Result<std::pair<Channel, Channel>> link = Channel::Pair();
  if (!link.ok()) return Failed("socketpair: {}", ErrnoText(link.error()));
  ContainerRecord record = NewRecord(options.id, bundle);
  fflush(nullptr);
  pid_t pid = fork();
  if (pid < 0) return HostFailed("fork the supervisor");
  if (pid == 0) {
    link->first = Channel();
    SupervisorMain(state, record, bundle.spec.hooks, std::move(plan), std::move(listener), std::move(console),
                   std::move(link->second));
  }
  link->second = Channel();
  record.SetProcess(pid);
  absl::Status made = AwaitSupervisor(std::move(link->first), state, options, bundle, record);
  if (!made.ok()) {
    // The supervisor takes sentry and gofer with it.
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    RunPoststopHooks(bundle.spec.hooks, record);
    return made;
  }
  return record;
}

absl::StatusOr<int> RunAttached(StateDir& state, const CreateOptions& options, Bundle bundle, BootConfig boot) {
  ScopedFd console;
  ASSIGN_OR_RETURN(LaunchPlan plan, MakePlan(options, bundle, std::move(boot), console));
  ASSIGN_OR_RETURN(ScopedFd listener, state.Listen());
  const oci::Hooks& hooks = bundle.spec.hooks;
  ContainerRecord record = NewRecord(options.id, bundle);
  record.SetProcess(getpid());
  ContainerMounts mounts;
  auto supervisor = Boot(std::move(plan), {.listener = std::move(listener), .job = false}, hooks, record, mounts);
  absl::Status made = supervisor.ok() ? Publish(state, options, bundle, record) : supervisor.status();
  if (made.ok()) {
    record.status = "running";
    made = state.Save(record);
  }
  state.Unlock();
  if (made.ok()) made = (*supervisor)->Start();
  if (!made.ok()) {
    if (supervisor.ok()) supervisor->reset();
    RunPoststopHooks(hooks, record);
    return made;
  }
  Warn(RunAllHooks(hooks.poststart, "poststart", StateJson(record, "running"), record.bundle));
  int status = (*supervisor)->Run();
  [[maybe_unused]] auto written = state.WriteFile("exit", std::to_string(status));
  if (absl::Status failed = (*supervisor)->start_failure(); !failed.ok()) {
    RunPoststopHooks(hooks, record);
    return failed;
  }
  return status;
}

absl::Status StartContainer(StateDir& state, ContainerRecord& record) {
  std::string status = StatusNow(record);
  if (status == "stopped") return absl::FailedPreconditionError("cannot start a container that has stopped");
  if (status != "created") return absl::FailedPreconditionError("cannot start an already running container");
  ASSIGN_OR_RETURN(Channel sandbox, state.Connect());
  Result<Message> answer = kEPIPE;
  if (sandbox.Send(MessageKind::kStart).ok()) answer = sandbox.Receive();
  if (!answer.ok()) return Failed("start {}: the sandbox is gone", record.id);
  if (answer->kind != MessageKind::kOk) return Failed("start {}: {}", record.id, answer->text);
  record.status = "running";
  RETURN_IF_ERROR(state.Save(record));
  ASSIGN_OR_RETURN(std::string config, state.ReadFile("config.json"));
  std::vector<std::string> warnings;
  ASSIGN_OR_RETURN(oci::Spec spec, oci::ParseSpec(config, warnings));
  Warn(RunAllHooks(spec.hooks.poststart, "poststart", StateJson(record, "running"), record.bundle));
  return absl::OkStatus();
}

absl::Status DestroyContainer(StateDir& state, const ContainerRecord& record) {
  absl::StatusOr<std::string> config = state.ReadFile("config.json");
  RETURN_IF_ERROR(state.Remove());
  std::vector<std::string> warnings;
  absl::StatusOr<oci::Spec> spec = config.ok() ? oci::ParseSpec(*config, warnings) : config.status();
  if (spec.ok()) RunPoststopHooks(spec->hooks, record);
  return absl::OkStatus();
}

}  // namespace moat
