// The time as logs and state files say it.
#ifndef MOAT_RUNSC_ERROR_TIMESTAMP_H_
#define MOAT_RUNSC_ERROR_TIMESTAMP_H_

#include <string>

namespace moat {

// Now, in UTC with nanoseconds: "2006-01-02T15:04:05.000000000Z" (RFC 3339).
std::string Rfc3339Now();

}  // namespace moat

#endif  // MOAT_RUNSC_ERROR_TIMESTAMP_H_
