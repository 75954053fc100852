// Where errors and warnings go, and the debug log.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "platform/registry.h"
#include "runsc/cli/command.h"
#include "runsc/error/error.h"
#include "runsc/error/timestamp.h"

namespace moat {
namespace {

void AppendToLog(const GlobalOptions& global, const char* level, const std::string& message) {
  if (global.log.empty()) return;
  ScopedFd fd(open(global.log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return;
  using nlohmann::json;
  auto quoted = [](const std::string& s) { return json(s).dump(-1, ' ', false, json::error_handler_t::replace); };
  std::string line;
  if (global.log_format == "json") {
    line = fmt::format("{{\"level\":\"{}\",\"msg\":{},\"time\":\"{}\"}}\n", level, quoted(message), Rfc3339Now());
  } else {
    line = fmt::format("time=\"{}\" level={} msg={}\n", Rfc3339Now(), level, quoted(message));
  }
  [[maybe_unused]] ssize_t n = write(fd.get(), line.data(), line.size());
}

int CpuCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

void ReportError(const GlobalOptions& global, const std::string& message) {
  std::string line = "runsc: " + message + "\n";
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, line.data(), line.size());
  AppendToLog(global, "error", message);
}

void ReportWarnings(const GlobalOptions& global, const std::vector<std::string>& warnings, int debug_log_fd) {
  bool terminal = isatty(STDERR_FILENO) == 1;
  for (const std::string& w : warnings) {
    if (terminal) fprintf(stderr, "runsc: warning: %s\n", w.c_str());
    if (global.debug) AppendToLog(global, "warning", w);
    if (debug_log_fd >= 0) dprintf(debug_log_fd, "W config: %s\n", w.c_str());
  }
}

absl::StatusOr<std::string> ChoosePlatform(const std::string& wanted) {
  std::string known;
  for (const PlatformInfo& p : Platforms()) {
    known += (known.empty() ? "" : ", ") + std::string(p.name);
    if (!wanted.empty() && wanted != p.name) continue;
    std::string why = p.why_unavailable();
    if (why.empty()) return std::string(p.name);
    if (!wanted.empty()) return Failed("--platform={} cannot work here: {}", wanted, why);
  }
  if (wanted.empty()) return Failed("none of the platforms ({}) works on this host", known);
  return Invalid("--platform={}: unknown platform, known ones: {}", wanted, known);
}

absl::StatusOr<BootConfig> MakeBootConfig(const GlobalOptions& global, const std::string& id, ScopedFd& log) {
  BootConfig config;
  config.id = id;
  ASSIGN_OR_RETURN(config.platform, ChoosePlatform(global.platform));
  if (global.network == "none") {
    config.network = NetworkKind::kNone;
  } else if (global.network == "sandbox" || global.network == "host") {
    return Invalid("--network={}: not implemented by this version, use --network=none", global.network);
  } else {
    return Invalid("--network={}: must be one of none, sandbox, host", global.network);
  }
  config.cpus = CpuCount();
  config.strace = global.strace;
  config.log_level = global.debug || global.strace ? LogLevel::kDebug : LogLevel::kInfo;
  std::string path = global.debug_log;
  if (path.empty() && global.strace) {
    log.Reset(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  } else if (!path.empty()) {
    if (size_t at = path.find("%ID%"); at != path.npos) path.replace(at, 4, id);
    log.Reset(open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!log.valid()) return HostFailed("--debug-log: open {}", path);
  }
  config.log_fd = log.get();
  return config;
}

}  // namespace moat
