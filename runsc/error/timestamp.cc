#include "runsc/error/timestamp.h"

#include <fmt/format.h>
#include <time.h>

namespace moat {

std::string Rfc3339Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char text[40];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:09}Z", text, now.tv_nsec);
}

}  // namespace moat
