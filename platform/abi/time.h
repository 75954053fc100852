// Time structures at the guest boundary. Source: <linux/time.h>, <linux/timex.h>; clock_gettime(2), setitimer(2).
#ifndef MOAT_PLATFORM_ABI_TIME_H_
#define MOAT_PLATFORM_ABI_TIME_H_

#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>

#include <cstdint>
#include <ctime>

namespace moat::abi {

using Timespec = ::timespec;
using Timeval = ::timeval;
using Itimerspec = ::itimerspec;
using Itimerval = ::itimerval;
using Timezone = struct ::timezone;
using Tms = struct ::tms;
using Timex = struct ::timex;

static_assert(sizeof(Timespec) == 16 && sizeof(Timeval) == 16);
static_assert(sizeof(Itimerspec) == 32 && sizeof(Itimerval) == 32);
static_assert(sizeof(Timezone) == 8 && sizeof(Tms) == 32 && sizeof(Timex) == 208);

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_TIME_H_
