// runsc create and runsc run: containers from bundles.
#include "runsc/container/create.h"

#include <stdio.h>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/container/console.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

void AddCreateOptions(OptionParser& parser, CreateOptions& options, std::optional<int64_t>& preserve_fds) {
  parser.Text("-b,--bundle", &options.bundle, "folder of config.json (default .)")
      .Text("--pid-file", &options.pid_file, "file to write the container's host pid to")
      .Text("--console-socket", &options.console_socket, "AF_UNIX socket that receives the terminal's master")
      .Number("--preserve-fds", &preserve_fds, "further descriptors for the container: only 0 works in this version")
      .Ignored("--pidfd-socket", true)
      .Ignored("--no-pivot", false)
      .Ignored("--no-new-keyring", false);
}

// Runs `make` with the container's folder locked; a failure removes the folder again.
template <typename Make>
auto WithNewContainer(const GlobalOptions& global, CreateOptions& options, const std::optional<int64_t>& preserve_fds,
                      Make make) -> decltype(make(std::declval<StateDir&>(), Bundle(), BootConfig())) {
  if (preserve_fds.value_or(0) != 0)
    return Invalid("--preserve-fds={}: not implemented by this version", *preserve_fds);
  RETURN_IF_ERROR(CheckContainerId(options.id));
  ASSIGN_OR_RETURN(Bundle bundle, ReadBundle(options.bundle));
  const bool terminal = bundle.spec.process && bundle.spec.process->terminal;
  std::optional<TerminalSettings> settings;
  if (terminal && !options.detach && options.console_socket.empty()) settings.emplace();
  ScopedFd log;
  ASSIGN_OR_RETURN(BootConfig boot, MakeBootConfig(global, options.id, log));
  options.warn = [&global, fd = boot.log_fd](const std::vector<std::string>& w) { ReportWarnings(global, w, fd); };
  options.warn(bundle.warnings);
  ASSIGN_OR_RETURN(StateDir state, StateDir::Create(global.root, options.id));
  auto result = make(state, std::move(bundle), std::move(boot));
  if (!result.ok()) {
    [[maybe_unused]] auto removed = state.Remove();
  }
  return result;
}

}  // namespace

absl::StatusOr<int> RunCreate(const GlobalOptions& global, std::vector<std::string> args) {
  CreateOptions options;
  std::optional<int64_t> preserve_fds;
  OptionParser parser("runsc create", "Creates a container; \"start\" runs its program.", "CONTAINER-ID");
  AddCreateOptions(parser, options, preserve_fds);
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  options.id = rest[0];
  auto made = WithNewContainer(global, options, preserve_fds, [&](StateDir& state, Bundle bundle, BootConfig boot) {
    return CreateContainer(state, options, std::move(bundle), std::move(boot));
  });
  if (!made.ok()) return made.status();
  return 0;
}

absl::StatusOr<int> RunRun(const GlobalOptions& global, std::vector<std::string> args) {
  CreateOptions options;
  std::optional<int64_t> preserve_fds;
  bool keep = false;
  options.detach = false;
  OptionParser parser("runsc run", "Creates and starts a container, and waits for it.", "CONTAINER-ID");
  AddCreateOptions(parser, options, preserve_fds);
  parser.Flag("-d,--detach", &options.detach, "do not wait")
      .Flag("--keep", &keep, "keep the container's state after its end")
      .Ignored("--no-subreaper", false);
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 1, 1));
  options.id = rest[0];
  if (options.detach) {
    auto started = WithNewContainer(
        global, options, preserve_fds,
        [&](StateDir& state, Bundle bundle, BootConfig boot) -> absl::StatusOr<ContainerRecord> {
          ASSIGN_OR_RETURN(ContainerRecord record, CreateContainer(state, options, std::move(bundle), std::move(boot)));
          RETURN_IF_ERROR(StartContainer(state, record));
          return record;
        });
    if (!started.ok()) return started.status();
    return 0;
  }
  auto status = WithNewContainer(
      global, options, preserve_fds, [&](StateDir& state, Bundle bundle, BootConfig boot) -> absl::StatusOr<int> {
        ASSIGN_OR_RETURN(int status, RunAttached(state, options, std::move(bundle), std::move(boot)));
        if (!keep && state.Lock().ok()) {
          absl::StatusOr<ContainerRecord> record = state.Load();
          if (record.ok()) [[maybe_unused]]
            auto gone = DestroyContainer(state, *record);
        }
        return status;
      });
  if (!status.ok()) return status.status();
  EndLike(*status);
}

}  // namespace moat
