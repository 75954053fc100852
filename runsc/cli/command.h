// The commands of runsc: one file each, cli/<command>.cc, and one table, cli/commands.cc.
#ifndef MOAT_RUNSC_CLI_COMMAND_H_
#define MOAT_RUNSC_CLI_COMMAND_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/scoped_fd.h"
#include "runsc/boot/boot_config.h"

namespace moat {

inline constexpr char kVersion[] = "0.1.0";
inline constexpr char kOciVersion[] = "1.2.0";

// The flags before the command.
struct GlobalOptions {
  std::string root;  // state directory
  std::string log, log_format = "text";
  bool debug = false;
  std::string debug_log;
  bool strace = false;
  std::string platform;  // empty: the best that works here
  std::string network = "none";
  std::string rootless = "auto";
  bool systemd_cgroup = false;
};

// Runs a command with the arguments after its name. The result is runsc's exit code; commands that stand for a guest
// process do not return (EndLike).
struct Command {
  std::string_view name;
  std::string_view summary;
  absl::StatusOr<int> (*run)(const GlobalOptions& global, std::vector<std::string> args);
  int failure_code = 1;
};
std::span<const Command> Commands();

absl::StatusOr<int> RunDo(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunRun(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunCreate(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunStart(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunState(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunKill(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunDelete(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunList(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunExec(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunPs(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunSpec(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunWait(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunSyscalls(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunHostSyscalls(const GlobalOptions& global, std::vector<std::string> args);
absl::StatusOr<int> RunFeatures(const GlobalOptions& global, std::vector<std::string> args);

// --- shared by the commands that start a sandbox ---
// The platform that --platform names, or the best that works here. An error says why it cannot work.
absl::StatusOr<std::string> ChoosePlatform(const std::string& wanted);
// Opens --debug-log (with "%ID%" replaced) and fills in what the global flags say. `log` keeps the descriptor.
absl::StatusOr<BootConfig> MakeBootConfig(const GlobalOptions& global, const std::string& id, ScopedFd& log);
// Named on stderr when it is a terminal, in --log with --debug, and in the debug log: never dropped without a trace.
void ReportWarnings(const GlobalOptions& global, const std::vector<std::string>& warnings, int debug_log_fd);
// One line on stderr, one in --log.
void ReportError(const GlobalOptions& global, const std::string& message);

}  // namespace moat

#endif  // MOAT_RUNSC_CLI_COMMAND_H_
