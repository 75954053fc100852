#include "runsc/container/create.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runsc/container/console.h"
#include "runsc/container/hooks.h"
#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"
#include "runsc/oci/parse.h"

namespace moat {
namespace {

std::string Rfc3339Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char text[40];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:09}Z", text, now.tv_nsec);
}

ContainerRecord NewRecord(const std::string& id, const Bundle& bundle, pid_t pid) {
  ContainerRecord record;
  record.id = id;
  record.bundle = bundle.path;
  record.rootfs = bundle.spec.root_path[0] == '/' ? bundle.spec.root_path : bundle.path + "/" + bundle.spec.root_path;
  record.created = Rfc3339Now();
  record.annotations = bundle.spec.annotations;
  record.pid = pid;
  record.pid_start_time = ProcessStartTime(pid);
  record.status = "created";
  return record;
}

absl::Status CheckTerminal(const oci::Process& process, const CreateOptions& options) {
  // An attached container may use the caller's own terminal.
  if (process.terminal && options.console_socket.empty() && (options.detach || isatty(STDIN_FILENO) != 1))
    return Invalid("process.terminal: is true, but --console-socket is not given{}",
                   options.detach ? "" : " and stdin is no terminal");
  if (!process.terminal && !options.console_socket.empty())
    return Invalid("--console-socket: is given, but process.terminal is false");
  return absl::OkStatus();
}

// Namespaces of the host are not joined (a warning says so), but a name that leads nowhere is a mistake.
absl::Status CheckNamespacePaths(const oci::Spec& spec) {
  for (size_t i = 0; i < spec.namespaces.size(); ++i) {
    const std::string& path = spec.namespaces[i].path;
    if (!path.empty() && access(path.c_str(), F_OK) != 0)
      return HostFailed("config.json: linux.namespaces[{}].path: {}", i, path);
  }
  return absl::OkStatus();
}

absl::StatusOr<LaunchPlan> MakePlan(const CreateOptions& options, Bundle& bundle, BootConfig boot, ScopedFd& console) {
  if (!bundle.spec.process) return Invalid("config.json: process: is required");
  LaunchPlan plan;
  plan.boot = std::move(boot);
  plan.boot.process = *bundle.spec.process;
  plan.boot.hostname = bundle.spec.hostname;
  plan.boot.domainname = bundle.spec.domainname;
  plan.boot.masked_paths = bundle.spec.masked_paths;
  plan.boot.readonly_paths = bundle.spec.readonly_paths;
  plan.boot.devices = bundle.spec.devices;
  RETURN_IF_ERROR(CheckTerminal(*bundle.spec.process, options));
  RETURN_IF_ERROR(CheckNamespacePaths(bundle.spec));
  absl::StatusOr<MountPlan> mounts = PlanBundleMounts(bundle.spec, bundle.path, bundle.warnings);
  if (!mounts.ok()) return Annotate(mounts.status(), "config.json");
  plan.boot.mounts = std::move(mounts->steps);
  // A /dev of the host's is taken as it is: no device can be made there.
  for (const MountStep& m : plan.boot.mounts)
    plan.boot.default_devices &= m.type != "host" || (m.destination != "/dev" && m.destination != "/dev/");
  plan.gofer_mounts = std::move(mounts->gofer_mounts);
  if (!options.console_socket.empty()) {
    const oci::Process& p = *bundle.spec.process;
    ASSIGN_OR_RETURN(console, OpenConsole(options.console_socket, p.console_height, p.console_width));
    for (int& fd : plan.stdio) fd = console.get();
  }
  return plan;
}

// What the forked supervisor tells the command that waits: "" or an error.
void Tell(int pipe_fd, const absl::Status& status) {
  std::string text = status.ok() ? "ok" : Text(status);
  [[maybe_unused]] ssize_t n = write(pipe_fd, text.data(), text.size());
}

[[noreturn]] void SupervisorMain(StateDir& state, LaunchPlan plan, ScopedFd listener, ScopedFd console, ScopedFd tell) {
  prctl(PR_SET_NAME, "runsc-init", 0, 0, 0);
  state.DetachFromParent();
  setsid();
  auto supervisor = Supervisor::Create(std::move(plan), {.listener = std::move(listener), .job = false});
  console.Reset();
  absl::Status ready = supervisor.ok() ? (*supervisor)->WaitReady() : supervisor.status();
  Tell(tell.get(), ready);
  tell.Reset();
  if (!ready.ok()) {
    if (supervisor.ok()) supervisor->reset();
    _exit(1);
  }
  int status = (*supervisor)->Run();
  [[maybe_unused]] auto written = state.WriteFile("exit", std::to_string(status));
  supervisor->reset();
  EndLike(status);
}

absl::Status WaitForReport(int fd) {
  std::string text;
  char buffer[4096];
  for (;;) {
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, n);
  }
  if (text == "ok") return absl::OkStatus();
  return Failed("create the container: {}", text.empty() ? "the supervisor ended early" : text);
}

// The hooks that run once the sandbox stands and before its init does.
absl::Status RunCreateHooks(const Bundle& bundle, const ContainerRecord& record) {
  std::string json = StateJson(record, "creating");
  RETURN_IF_ERROR(RunHooks(bundle.spec.hooks.prestart, "prestart", json, record.bundle));
  return RunHooks(bundle.spec.hooks.create_runtime, "createRuntime", json, record.bundle);
}

absl::Status Publish(StateDir& state, const CreateOptions& options, const Bundle& bundle,
                     const ContainerRecord& record) {
  RETURN_IF_ERROR(RunCreateHooks(bundle, record));
  RETURN_IF_ERROR(state.WriteFile("config.json", bundle.config_text));
  if (!options.pid_file.empty()) RETURN_IF_ERROR(WritePidFile(options.pid_file, record.pid));
  return state.Save(record);
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
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return HostFailed("pipe");
  ScopedFd report_read(report[0]), report_write(report[1]);
  fflush(nullptr);
  pid_t pid = fork();
  if (pid < 0) return HostFailed("fork the supervisor");
  if (pid == 0) {
    report_read.Reset();
    SupervisorMain(state, std::move(plan), std::move(listener), std::move(console), std::move(report_write));
  }
  report_write.Reset();
  absl::Status ready = WaitForReport(report_read.get());
  ContainerRecord record = NewRecord(options.id, bundle, pid);
  if (ready.ok()) ready = Publish(state, options, bundle, record);
  if (!ready.ok()) {
    // The supervisor takes sentry and gofer with it.
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return ready;
  }
  return record;
}

absl::StatusOr<int> RunAttached(StateDir& state, const CreateOptions& options, Bundle bundle, BootConfig boot) {
  ScopedFd console;
  ASSIGN_OR_RETURN(LaunchPlan plan, MakePlan(options, bundle, std::move(boot), console));
  ASSIGN_OR_RETURN(ScopedFd listener, state.Listen());
  ASSIGN_OR_RETURN(auto supervisor,
                   Supervisor::Create(std::move(plan), {.listener = std::move(listener), .job = false}));
  console.Reset();
  RETURN_IF_ERROR(supervisor->WaitReady());
  ContainerRecord record = NewRecord(options.id, bundle, getpid());
  RETURN_IF_ERROR(Publish(state, options, bundle, record));
  record.status = "running";
  RETURN_IF_ERROR(state.Save(record));
  state.Unlock();
  RETURN_IF_ERROR(supervisor->Start());
  absl::Status hooks = RunHooks(bundle.spec.hooks.poststart, "poststart", StateJson(record, "running"), record.bundle);
  if (!hooks.ok()) fprintf(stderr, "runsc: %s\n", Text(hooks).c_str());
  int status = supervisor->Run();
  [[maybe_unused]] auto written = state.WriteFile("exit", std::to_string(status));
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
  return RunHooks(spec.hooks.poststart, "poststart", StateJson(record, "running"), record.bundle);
}

absl::Status DestroyContainer(StateDir& state, const ContainerRecord& record) {
  absl::StatusOr<std::string> config = state.ReadFile("config.json");
  RETURN_IF_ERROR(state.Remove());
  std::vector<std::string> warnings;
  absl::StatusOr<oci::Spec> spec = config.ok() ? oci::ParseSpec(*config, warnings) : config.status();
  if (!spec.ok()) return absl::OkStatus();
  absl::Status hooks = RunHooks(spec->hooks.poststop, "poststop", StateJson(record, "stopped"), record.bundle);
  if (!hooks.ok()) fprintf(stderr, "runsc: warning: %s\n", Text(hooks).c_str());
  return absl::OkStatus();
}

}  // namespace moat
