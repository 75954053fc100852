#include "runsc/gofer/lockdown.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::gofer {
namespace {

struct KeptCapability {
  int capability;
  const char* reason;
};
constexpr KeptCapability kKept[] = {
    {CAP_DAC_OVERRIDE, "the sentry has checked the guest's permissions; container root passes mode bits"},
    {CAP_CHOWN, "new objects get the guest's ids; chown(2)"},
    {CAP_FOWNER, "chmod, utimens, xattrs and sticky directories of files that other ids own"},
    {CAP_FSETID, "chmod of a set-gid file whose group the gofer is not in"},
    {CAP_SETFCAP, "setxattr of security.capability, as package managers do"},
};

}  // namespace

void RaiseFileLimits() {
  // The sentry applies the guest's limit on file sizes; the gofer's own must not end it.
  signal(SIGXFSZ, SIG_IGN);
  rlimit size;
  if (getrlimit(RLIMIT_FSIZE, &size) == 0) {
    size.rlim_cur = size.rlim_max;
    setrlimit(RLIMIT_FSIZE, &size);
  }
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<void> DropCapabilities() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return HostErrno();
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return HostErrno();
  // EPERM: no CAP_SETPCAP. The bounding set then does no harm: nothing here ever executes a file.
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EPERM) return HostErrno();
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (syscall(SYS_capget, &header, sets) != 0) return HostErrno();
  uint32_t kept[2] = {0, 0};
  for (const KeptCapability& k : kKept) kept[k.capability / 32] |= 1u << (k.capability % 32);
  for (int i = 0; i < 2; ++i) {
    sets[i].permitted &= kept[i];
    sets[i].effective = sets[i].permitted;
    sets[i].inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets) != 0) return HostErrno();
  return {};
}

}  // namespace moat::gofer
