// runsc start, state, kill, delete, list, wait: commands on a container that exists.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/container/create.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// Waits until the supervisor is gone, at most `milliseconds` (-1: for ever).
bool WaitUntilStopped(const ContainerRecord& record, int milliseconds) {
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, record.pid, 0)));
  if (!pidfd.valid() || StatusNow(record) == "stopped") return true;
  pollfd p = {pidfd.get(), POLLIN, 0};
  while (true) {
    int n = poll(&p, 1, milliseconds);
    if (n < 0 && errno == EINTR) continue;
    return n > 0;
  }
}

absl::Status SignalContainer(StateDir& state, const ContainerRecord& record, int signo, bool all) {
  absl::StatusOr<Channel> sandbox = state.Connect();
  if (sandbox.ok() && sandbox->Send(MessageKind::kSignalInit, signo, all ? "all" : "").ok()) {
    Result<Message> answer = sandbox->Receive();
    if (answer.ok() && answer->kind == MessageKind::kOk) return absl::OkStatus();
    if (answer.ok()) return Failed("kill {}: {}", record.id, answer->text);
  }
  // A sandbox that does not listen any more still has to die.
  if (signo == SIGKILL && kill(record.pid, SIGKILL) == 0) return absl::OkStatus();
  return Failed("kill {}: container not running", record.id);
}

}  // namespace

absl::StatusOr<int> RunStart(const GlobalOptions& global, std::vector<std::string> args) {
  OptionParser parser("runsc start", "Runs the program of a created container.", "CONTAINER-ID");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  ASSIGN_OR_RETURN(StateDir state, StateDir::Open(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  RETURN_IF_ERROR(StartContainer(state, record));
  return 0;
}

absl::StatusOr<int> RunState(const GlobalOptions& global, std::vector<std::string> args) {
  OptionParser parser("runsc state", "Prints the state of a container as JSON.", "CONTAINER-ID");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  ASSIGN_OR_RETURN(StateDir state, StateDir::Peek(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  printf("%s\n", StateJson(record, StatusNow(record)).c_str());
  return 0;
}

absl::StatusOr<int> RunKill(const GlobalOptions& global, std::vector<std::string> args) {
  bool all = false;
  OptionParser parser("runsc kill", "Sends a signal to a container's init process.", "CONTAINER-ID [SIGNAL]");
  parser.Flag("-a,--all", &all, "to all processes of the container");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 2));
  ASSIGN_OR_RETURN(int signo, ParseSignal(rest.size() > 1 ? rest[1] : "TERM"));
  ASSIGN_OR_RETURN(StateDir state, StateDir::Peek(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  if (StatusNow(record) == "stopped") {
    if (all) return 0;
    return Failed("kill {}: container not running", record.id);
  }
  RETURN_IF_ERROR(SignalContainer(state, record, signo, all));
  return 0;
}

absl::StatusOr<int> RunDelete(const GlobalOptions& global, std::vector<std::string> args) {
  bool force = false;
  OptionParser parser("runsc delete", "Removes a stopped container.", "CONTAINER-ID");
  parser.Flag("-f,--force", &force, "kill it first; a missing container is no error");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  absl::StatusOr<StateDir> state = StateDir::Peek(global.root, rest[0]);
  if (absl::IsNotFound(state.status()) && force) return 0;
  if (!state.ok()) return state.status();
  absl::StatusOr<ContainerRecord> record = state->Load();
  if (!record.ok()) {
    // A create that is under way, or that was killed half-way and left its folder.
    if (!force) return record.status();
    absl::Status locked = state->Lock();
    if (absl::IsNotFound(locked)) return 0;
    RETURN_IF_ERROR(locked);
    record = state->Load();
    if (!record.ok()) {
      RETURN_IF_ERROR(state->Remove());
      return 0;
    }
    state->Unlock();
  }
  std::string status = StatusNow(*record);
  if (status == "running" && !force)
    return Failed("cannot delete container {} that is not stopped: {}", record->id, status);
  if (status != "stopped") {
    // Without the lock: a start whose hooks take for ever has it.
    [[maybe_unused]] auto sent = SignalContainer(*state, *record, SIGKILL, false);
    if (!WaitUntilStopped(*record, 5000)) kill(record->pid, SIGKILL);
    if (!WaitUntilStopped(*record, 5000)) return Failed("delete {}: the container does not end", record->id);
  }
  absl::Status locked = state->Lock();
  if (absl::IsNotFound(locked) && force) return 0;
  RETURN_IF_ERROR(locked);
  RETURN_IF_ERROR(DestroyContainer(*state, *record));
  return 0;
}

absl::StatusOr<int> RunList(const GlobalOptions& global, std::vector<std::string> args) {
  std::string format = "table";
  bool quiet = false;
  OptionParser parser("runsc list", "Lists the containers under --root.", "");
  parser.Text("-f,--format", &format, "table or json").Flag("-q,--quiet", &quiet, "ids only");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 0, 0));
  if (format != "table" && format != "json") return Invalid("--format={}: must be table or json", format);
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  if (!quiet && format == "table") printf("%-24s %-8s %-9s %-32s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
  for (const std::string& id : StateDir::List(global.root)) {
    absl::StatusOr<StateDir> state = StateDir::Peek(global.root, id);
    if (!state.ok()) continue;
    absl::StatusOr<ContainerRecord> r = state->Load();
    if (!r.ok()) continue;
    std::string status = StatusNow(*r);
    if (quiet) {
      printf("%s\n", id.c_str());
    } else if (format == "table") {
      printf("%-24s %-8d %-9s %-32s %s\n", id.c_str(), status == "stopped" ? 0 : r->pid, status.c_str(),
             r->bundle.c_str(), r->created.c_str());
    } else {
      out.push_back(nlohmann::ordered_json::parse(StateJson(*r, status)));
    }
  }
  if (!quiet && format == "json") printf("%s\n", out.dump().c_str());
  return 0;
}

absl::StatusOr<int> RunWait(const GlobalOptions& global, std::vector<std::string> args) {
  OptionParser parser("runsc wait", "Waits for a container to end and prints its exit status as JSON.", "CONTAINER-ID");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  ASSIGN_OR_RETURN(StateDir state, StateDir::Peek(global.root, rest[0]));
  ASSIGN_OR_RETURN(ContainerRecord record, state.Load());
  WaitUntilStopped(record, -1);
  int status = state.ExitStatus().value_or(SIGKILL);
  int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  printf("{\"id\":\"%s\",\"pid\":%d,\"exitStatus\":%d}\n", record.id.c_str(), record.pid, code);
  return 0;
}

}  // namespace moat
