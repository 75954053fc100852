// sysfs: the few parts of /sys that programs ask for: the CPUs, the kernel's own corner, the loopback device, the
// mount points of other file systems. Source: sysfs(5), Documentation/ABI of Linux.
#ifndef MOAT_SENTRY_SYSFS_SYSFS_H_
#define MOAT_SENTRY_SYSFS_SYSFS_H_

namespace moat {

class Kernel;

// Registers the file system types "sysfs" and "cgroup2" (an empty, read-only hierarchy of one group). Once, at boot.
void RegisterSysfs(Kernel& kernel);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSFS_SYSFS_H_
