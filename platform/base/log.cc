#include "platform/base/log.h"

#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <string>

namespace moat {
namespace {

std::atomic<int> log_fd{-1};
std::atomic<int> log_level{static_cast<int>(LogLevel::kOff)};

void WriteAll(int fd, std::string_view s) {
  // One write per line keeps lines of several processes whole; a short write loses only log text.
  [[maybe_unused]] ssize_t n = write(fd, s.data(), s.size());
}

}  // namespace

void SetLog(int fd, LogLevel level) {
  log_fd.store(fd, std::memory_order_relaxed);
  log_level.store(fd < 0 ? static_cast<int>(LogLevel::kOff) : static_cast<int>(level), std::memory_order_relaxed);
}

bool LogEnabled(LogLevel level) { return static_cast<int>(level) >= log_level.load(std::memory_order_relaxed); }

void LogLine(LogLevel level, std::string_view line) {
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  long day = ts.tv_sec % 86400;
  std::string text = fmt::format("{} {:02}:{:02}:{:02}.{:06} {}\n", "DIWE"[static_cast<int>(level)], day / 3600,
                                 day / 60 % 60, day % 60, ts.tv_nsec / 1000, line);
  int fd = log_fd.load(std::memory_order_relaxed);
  if (fd >= 0) WriteAll(fd, text);
}

void Panic(const char* file, int line, std::string_view message) {
  std::string text = fmt::format("moat: {}:{}: {}\n", file, line, message);
  WriteAll(STDERR_FILENO, text);
  int fd = log_fd.load(std::memory_order_relaxed);
  if (fd >= 0) WriteAll(fd, text);
  __builtin_trap();  // dies of SIGILL: no host call outside of the lists
}

}  // namespace moat
