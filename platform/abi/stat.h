// struct stat, statx and statfs as x86-64 guests lay them out: those of the host's C library. Source: stat(2),
// statx(2).
#ifndef MOAT_PLATFORM_ABI_STAT_H_
#define MOAT_PLATFORM_ABI_STAT_H_

#include <sys/stat.h>
#include <sys/statfs.h>
#include <utime.h>

namespace moat::abi {

using Stat = struct ::stat;
using Statx = struct ::statx;
using StatFs = struct ::statfs;
using Utimbuf = struct ::utimbuf;

static_assert(sizeof(Stat) == 144);
static_assert(sizeof(Statx) == 256);
static_assert(sizeof(StatFs) == 120);
static_assert(sizeof(Utimbuf) == 16);

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_STAT_H_
