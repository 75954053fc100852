// runsc: flags before the command, then the command. See cli/commands.cc for the table.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// Descriptors 0, 1 and 2 must be the guest's stdio even when the caller closed some: nothing else may land there.
void EnsureStdio() {
  for (int fd = 0; fd < 3; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) _exit(1);
  }
}

std::string DefaultRoot() {
  const char* runtime_dir = getenv("XDG_RUNTIME_DIR");
  if (geteuid() != 0 && runtime_dir != nullptr && *runtime_dir != '\0') return std::string(runtime_dir) + "/runsc";
  if (geteuid() != 0) return fmt::format("/tmp/runsc-{}", geteuid());
  return "/run/runsc";
}

void PrintCommands() {
  printf("\ncommands:\n");
  for (const Command& c : Commands()) printf("  %-14s %s\n", c.name.data(), c.summary.data());
  printf("\n\"runsc COMMAND --help\" tells the options of a command.\n");
}

int Main(int argc, char** argv) {
  EnsureStdio();
  GlobalOptions global;
  bool version = false;
  OptionParser parser("runsc", "Runs programs in a sandbox with a kernel of its own.", "COMMAND [ARGS...]");
  parser.Text("--root", &global.root, "state directory (default /run/runsc)")
      .Text("--log", &global.log, "append errors to this file")
      .Text("--log-format", &global.log_format, "text or json")
      .Flag("--debug", &global.debug, "log more")
      .Text("--debug-log", &global.debug_log, "the sandbox's own log; %ID% is the container's id")
      .Flag("--strace", &global.strace, "log the guest's system calls to --debug-log, else to stderr")
      .Text("--platform", &global.platform, "how guest code runs: systrap, ptrace; without it the first that works")
      .Text("--network", &global.network, "none (loopback only)")
      .Flag("--systemd-cgroup", &global.systemd_cgroup, "accepted; cgroups are not managed by this version")
      .Text("--rootless", &global.rootless, "true, false or auto; accepted, found out by itself")
      .Ignored("--criu", true)
      .Ignored("--cgroup-manager", true)
      .Flag("-v,--version", &version, "print the version");
  absl::StatusOr<std::vector<std::string>> rest = parser.Parse({argv + 1, argv + argc}, 0, -1);
  if (absl::IsCancelled(rest.status())) {
    PrintCommands();
    return 0;
  }
  if (!rest.ok()) {
    ReportError(global, Text(rest.status()));
    return 1;
  }
  if (version) {
    printf("runsc version %s\ncommit: %s\nspec: %s\n", kVersion, MOAT_COMMIT, kOciVersion);
    return 0;
  }
  if (global.root.empty()) global.root = DefaultRoot();
  if (rest->empty()) {
    ReportError(global, "no command given (see runsc --help)");
    return 1;
  }
  for (const Command& c : Commands()) {
    if (c.name != rest->front()) continue;
    rest->erase(rest->begin());
    absl::StatusOr<int> code = c.run(global, *std::move(rest));
    if (code.ok()) return *code;
    if (absl::IsCancelled(code.status())) return 0;
    ReportError(global, Text(code.status()));
    return ExitCodeOf(code.status(), c.failure_code);
  }
  ReportError(global, fmt::format("unknown command \"{}\" (see runsc --help)", rest->front()));
  return 1;
}

}  // namespace
}  // namespace moat

int main(int argc, char** argv) { return moat::Main(argc, argv); }
