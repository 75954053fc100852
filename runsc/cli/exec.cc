// runsc exec and ps. An exec'd process has a host process that stands for it: it ends as the guest's does, passes
// signals on, and takes the guest process with it when it is killed.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/container/console.h"
#include "runsc/container/create.h"
#include "runsc/error/error.h"
#include "runsc/oci/parse.h"
#include "runsc/sandbox/stand_in.h"

namespace moat {
namespace {

struct ExecOptions {
  std::string process_file, pid_file, console_socket, cwd, user;
  std::vector<std::string> env, caps, groups;
  bool detach = false, tty = false, no_new_privs = false;
};

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return HostFailed("--process: open {}", path);
  std::string text;
  char buffer[8192];
  ssize_t n;
  while ((n = read(fd.get(), buffer, sizeof buffer)) > 0) text.append(buffer, n);
  if (n < 0) return HostFailed("--process: read {}", path);
  return text;
}

absl::StatusOr<uint32_t> Id(const std::string& text, const char* flag) {
  char* end = nullptr;
  unsigned long v = strtoul(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || v >= UINT32_MAX) return Invalid("{}={}: must be a number", flag, text);
  return static_cast<uint32_t>(v);
}

// From --process, or from the container's own process with the options applied.
absl::StatusOr<oci::Process> MakeProcess(const StateDir& state, const ExecOptions& options,
                                         std::vector<std::string> args, std::vector<std::string>& warnings) {
  if (!options.process_file.empty()) {
    ASSIGN_OR_RETURN(std::string text, ReadWhole(options.process_file));
    absl::StatusOr<oci::Process> process = oci::ParseProcess(text, warnings);
    if (!process.ok()) return Annotate(process.status(), options.process_file);
    if (options.tty) process->terminal = true;
    return process;
  }
  ASSIGN_OR_RETURN(std::string config, state.ReadFile("config.json"));
  std::vector<std::string> old;
  ASSIGN_OR_RETURN(oci::Spec spec, oci::ParseSpec(config, old));
  oci::Process process = spec.process.value_or(oci::Process{});
  process.args = std::move(args);
  process.terminal = options.tty;
  if (!options.cwd.empty()) process.cwd = options.cwd;
  process.env.insert(process.env.end(), options.env.begin(), options.env.end());
  if (options.no_new_privs) process.no_new_privileges = true;
  if (!options.user.empty()) {
    size_t colon = options.user.find(':');
    ASSIGN_OR_RETURN(process.user.uid, Id(options.user.substr(0, colon), "--user"));
    if (colon != std::string::npos) {
      ASSIGN_OR_RETURN(process.user.gid, Id(options.user.substr(colon + 1), "--user"));
    }
  }
  for (const std::string& g : options.groups) {
    ASSIGN_OR_RETURN(uint32_t gid, Id(g, "--additional-gids"));
    process.user.additional_gids.push_back(gid);
  }
  for (const std::string& name : options.caps) {
    int cap = oci::CapabilityNumber(name);
    if (cap < 0) {
      warnings.push_back(fmt::format("--cap={}: unknown capability, not granted", name));
      continue;
    }
    if (!process.capabilities) process.capabilities.emplace();
    for (CapabilitySet* set : {&process.capabilities->bounding, &process.capabilities->permitted,
                               &process.capabilities->effective, &process.capabilities->inheritable})
      *set = set->With(cap);
  }
  return process;
}

int FlagsOf(const StandIn& stand_in) {
  return (stand_in.is_job() ? kExecJob : 0) | (stand_in.is_orphaned() ? kExecOrphaned : 0) |
         (stand_in.InBackground() ? kExecBackground : 0);
}

// Asks the sandbox; ok: the process runs.
absl::Status StartExec(Channel& sandbox, int flags, const oci::Process& process, const int (&stdio)[3]) {
  Result<Message> answer = kEPIPE;
  if (sandbox.Send(MessageKind::kExec, flags, oci::ProcessJson(process), stdio).ok()) answer = sandbox.Receive();
  if (!answer.ok()) return Failed("exec: container not running");
  if (answer->kind != MessageKind::kOk) return Failed("{}", answer->text);
  return absl::OkStatus();
}

// Stands for the guest process until its end; its wait status.
int StandFor(Channel& sandbox, StandIn& stand_in) {
  for (;;) {
    pollfd fds[] = {{sandbox.fd(), POLLIN, 0}, {stand_in.fd(), POLLIN, 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR) return SIGKILL;
    if (fds[0].revents != 0) {
      Result<Message> message = sandbox.Receive();
      if (!message.ok()) return SIGKILL;  // the container ended, and its processes with it
      if (message->kind == MessageKind::kExited) return message->number;
      if (message->kind == MessageKind::kStopped) stand_in.GuestStopped(*message, sandbox);
    }
    if (fds[1].revents != 0) stand_in.ForwardSignals(sandbox);
  }
}

absl::Status Detach(Channel sandbox, const ExecOptions& options, const oci::Process& process, const int (&stdio)[3],
                    ScopedFd& console) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return HostFailed("pipe");
  fflush(nullptr);
  pid_t pid = fork();
  if (pid < 0) return HostFailed("fork");
  if (pid == 0) {
    close(report[0]);
    prctl(PR_SET_NAME, "runsc-exec", 0, 0, 0);
    setsid();
    absl::StatusOr<StandIn> stand_in = StandIn::Create(/*job=*/false);
    absl::Status started = stand_in.status();
    if (stand_in.ok()) {
      // The manager's end of the terminal reaches us by its signals.
      const bool leader = console.valid() && ioctl(console.get(), TIOCSCTTY, 0) == 0;
      started = StartExec(sandbox, FlagsOf(*stand_in) | (leader ? kExecLeader : 0), process, stdio);
    }
    std::string text = started.ok() ? "ok" : Text(started);
    [[maybe_unused]] ssize_t n = write(report[1], text.data(), text.size());
    close(report[1]);
    if (!started.ok()) _exit(1);
    console.Reset();
    EndLike(StandFor(sandbox, *stand_in));
  }
  close(report[1]);
  ScopedFd reader(report[0]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(reader.get(), buffer, sizeof buffer)) != 0;) {
    if (n > 0)
      text.append(buffer, n);
    else if (errno != EINTR)
      break;
  }
  absl::Status status =
      text == "ok" ? absl::OkStatus() : Failed("{}", text.empty() ? "exec: the agent ended early" : text);
  if (status.ok() && !options.pid_file.empty()) status = WritePidFile(options.pid_file, pid);
  if (!status.ok()) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  return status;
}

}  // namespace

absl::StatusOr<int> RunExec(const GlobalOptions& global, std::vector<std::string> args) {
  ExecOptions options;
  std::optional<int64_t> preserve_fds;
  OptionParser parser("runsc exec", "Runs another process in a container.", "CONTAINER-ID [COMMAND [ARGS...]]");
  parser.Text("-p,--process", &options.process_file, "file with the process as JSON")
      .Flag("-d,--detach", &options.detach, "do not wait")
      .Text("--pid-file", &options.pid_file, "file to write the process's host pid to")
      .Text("--console-socket", &options.console_socket, "AF_UNIX socket that receives the terminal's master")
      .Number("--preserve-fds", &preserve_fds, "further descriptors: only 0 works in this version")
      .Text("--cwd", &options.cwd, "working directory")
      .Texts("-e,--env", &options.env, "NAME=VALUE")
      .Flag("-t,--tty", &options.tty, "with a terminal")
      .Text("-u,--user", &options.user, "UID[:GID]")
      .Texts("-g,--additional-gids", &options.groups, "further group ids")
      .Texts("-c,--cap", &options.caps, "CAP_NAME: a further capability")
      .Flag("--no-new-privs", &options.no_new_privs, "set no_new_privs")
      .Ignored("--apparmor", true)
      .Ignored("--process-label", true)
      .Ignored("--cgroup", true)
      .Ignored("--pidfd-socket", true)
      .Ignored("--ignore-paused", false);
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, -1));
  if (preserve_fds.value_or(0) != 0)
    return Invalid("--preserve-fds={}: not implemented by this version", *preserve_fds);
  ASSIGN_OR_RETURN(StateDir state, StateDir::Peek(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  if (StatusNow(record) == "stopped") return Failed("cannot exec in a stopped container");
  rest.erase(rest.begin());
  if (!rest.empty() && rest[0] == "--") rest.erase(rest.begin());
  if (rest.empty() && options.process_file.empty()) return Invalid("exec: no command and no --process given");
  std::vector<std::string> warnings;
  ASSIGN_OR_RETURN(oci::Process process, MakeProcess(state, options, std::move(rest), warnings));
  ReportWarnings(global, warnings, -1);

  int stdio[3] = {0, 1, 2};
  ScopedFd console;
  if (!options.console_socket.empty()) {
    if (!process.terminal) return Invalid("--console-socket: is given, but the process has no terminal (--tty)");
    if (!options.detach) return Invalid("--console-socket: needs --detach");
    ASSIGN_OR_RETURN(console, OpenConsole(options.console_socket, process.console_height, process.console_width));
    for (int& fd : stdio) fd = console.get();
  } else if (process.terminal && options.detach) {
    return Invalid("--detach with a terminal needs --console-socket");
  }
  ASSIGN_OR_RETURN(Channel sandbox, state.Connect());
  std::optional<TerminalSettings> settings;
  if (process.terminal && !options.detach) settings.emplace();
  if (options.detach) {
    RETURN_IF_ERROR(Detach(std::move(sandbox), options, process, stdio, console));
    return 0;
  }
  ASSIGN_OR_RETURN(StandIn stand_in, StandIn::Create(/*job=*/true));
  RETURN_IF_ERROR(StartExec(sandbox, FlagsOf(stand_in), process, stdio));
  if (!options.pid_file.empty()) RETURN_IF_ERROR(WritePidFile(options.pid_file, getpid()));
  const int status = StandFor(sandbox, stand_in);
  settings.reset();
  EndLike(status);
}

absl::StatusOr<int> RunPs(const GlobalOptions& global, std::vector<std::string> args) {
  std::string format = "table";
  OptionParser parser("runsc ps", "Lists the processes of a container.", "CONTAINER-ID");
  parser.Text("-f,--format", &format, "table (the guest's processes) or json (host pids, for managers)");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, -1));
  if (format != "table" && format != "json") return Invalid("--format={}: must be table or json", format);
  ASSIGN_OR_RETURN(StateDir state, StateDir::Peek(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  if (StatusNow(record) == "stopped") return Failed("ps {}: container not running", record.id);
  if (format == "json") {
    printf("[%d]\n", record.pid);
    return 0;
  }
  ASSIGN_OR_RETURN(Channel sandbox, state.Connect());
  Result<Message> answer = kEPIPE;
  if (sandbox.Send(MessageKind::kProcesses).ok()) answer = sandbox.Receive();
  if (!answer.ok() || answer->kind != MessageKind::kOk) return Failed("ps {}: the sandbox does not answer", record.id);
  nlohmann::json rows = nlohmann::json::parse(answer->text, nullptr, false);
  if (!rows.is_array()) return Failed("ps {}: the sandbox answers nonsense", record.id);
  printf("%7s %7s %7s %s %s\n", "PID", "PPID", "UID", "S", "COMMAND");
  for (const auto& row : rows) {
    if (!row.is_object()) continue;
    printf("%7d %7d %7u %s %s\n", row.value("pid", 0), row.value("ppid", 0), row.value("uid", 0u),
           row.value("state", "?").c_str(), row.value("comm", "?").c_str());
  }
  return 0;
}

}  // namespace moat
