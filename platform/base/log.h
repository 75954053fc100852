// The sentry's log. Lines go to the fd given by SetLog (the --debug-log), formatted with fmt.
//   MOAT_LOG(kInfo, "mounted {} at {}", type, path);
//   MOAT_LOG_ONCE("mq_open: not implemented, answers ENOSYS");   // once per call site
// Safe from any thread, not from a signal handler. Formatting costs nothing when the level is off.
#ifndef MOAT_PLATFORM_BASE_LOG_H_
#define MOAT_PLATFORM_BASE_LOG_H_

#include <fmt/core.h>

#include <atomic>
#include <string_view>

namespace moat {

enum class LogLevel : int { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kOff = 4 };

// `fd` stays owned by the caller and must outlive all logging; -1 discards.
void SetLog(int fd, LogLevel level);
bool LogEnabled(LogLevel level);
void LogLine(LogLevel level, std::string_view line);

// Prints `message` on the log and on stderr and ends the process: a broken invariant of ours.
[[noreturn]] void Panic(const char* file, int line, std::string_view message);

}  // namespace moat

#define MOAT_LOG(level, ...)                                                \
  do {                                                                      \
    if (::moat::LogEnabled(::moat::LogLevel::level)) [[unlikely]]           \
      ::moat::LogLine(::moat::LogLevel::level, ::fmt::format(__VA_ARGS__)); \
  } while (0)

#define MOAT_LOG_ONCE(...)                                                                         \
  do {                                                                                             \
    static ::std::atomic<bool> moat_logged{false};                                                 \
    if (!moat_logged.exchange(true, ::std::memory_order_relaxed)) MOAT_LOG(kWarning, __VA_ARGS__); \
  } while (0)

// Checked in every build: an invariant whose breach must not go on.
#define MOAT_CHECK(cond)                                         \
  do {                                                           \
    if (!(cond)) [[unlikely]]                                    \
      ::moat::Panic(__FILE__, __LINE__, "check failed: " #cond); \
  } while (0)

#endif  // MOAT_PLATFORM_BASE_LOG_H_
