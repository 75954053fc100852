// /proc/<pid>/net: tables that the network code registers, of the process's network namespace.
#ifndef MOAT_SENTRY_PROCFS_NET_DIR_H_
#define MOAT_SENTRY_PROCFS_NET_DIR_H_

#include <string>

#include "sentry/kernel/namespaces.h"

namespace moat {

using NetTable = std::string (*)(NetNamespace& ns);
// Adds a file; at boot, before the first mount of procfs.
void RegisterProcNet(const char* name, NetTable table);

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_NET_DIR_H_
