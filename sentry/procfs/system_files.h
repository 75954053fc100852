// The system-wide files of /proc.
#ifndef MOAT_SENTRY_PROCFS_SYSTEM_FILES_H_
#define MOAT_SENTRY_PROCFS_SYSTEM_FILES_H_

#include "sentry/procfs/procfs.h"

namespace moat {

void AddSystemFiles(ProcFs& fs, StaticDir& root);
// lock_files.cc: locks and System V objects.
void AddLockFiles(ProcFs& fs, StaticDir& root);

// cpuinfo.cc: what the CPUID instruction says, once per guest CPU.
std::string CpuInfo(int cpus);

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_SYSTEM_FILES_H_
