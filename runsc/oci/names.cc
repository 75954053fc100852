// Names of capabilities, resource limits and scheduling policies. Source: capabilities(7), getrlimit(2), sched(7).
#include "runsc/oci/names.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>

#include "runsc/oci/parse.h"

namespace moat::oci {
namespace {

struct Name {
  std::string_view name;
  int number;
};

#define MOAT_NAME(n) \
  { #n, n }
constexpr Name kCapabilities[] = {
    MOAT_NAME(CAP_CHOWN),
    MOAT_NAME(CAP_DAC_OVERRIDE),
    MOAT_NAME(CAP_DAC_READ_SEARCH),
    MOAT_NAME(CAP_FOWNER),
    MOAT_NAME(CAP_FSETID),
    MOAT_NAME(CAP_KILL),
    MOAT_NAME(CAP_SETGID),
    MOAT_NAME(CAP_SETUID),
    MOAT_NAME(CAP_SETPCAP),
    MOAT_NAME(CAP_LINUX_IMMUTABLE),
    MOAT_NAME(CAP_NET_BIND_SERVICE),
    MOAT_NAME(CAP_NET_BROADCAST),
    MOAT_NAME(CAP_NET_ADMIN),
    MOAT_NAME(CAP_NET_RAW),
    MOAT_NAME(CAP_IPC_LOCK),
    MOAT_NAME(CAP_IPC_OWNER),
    MOAT_NAME(CAP_SYS_MODULE),
    MOAT_NAME(CAP_SYS_RAWIO),
    MOAT_NAME(CAP_SYS_CHROOT),
    MOAT_NAME(CAP_SYS_PTRACE),
    MOAT_NAME(CAP_SYS_PACCT),
    MOAT_NAME(CAP_SYS_ADMIN),
    MOAT_NAME(CAP_SYS_BOOT),
    MOAT_NAME(CAP_SYS_NICE),
    MOAT_NAME(CAP_SYS_RESOURCE),
    MOAT_NAME(CAP_SYS_TIME),
    MOAT_NAME(CAP_SYS_TTY_CONFIG),
    MOAT_NAME(CAP_MKNOD),
    MOAT_NAME(CAP_LEASE),
    MOAT_NAME(CAP_AUDIT_WRITE),
    MOAT_NAME(CAP_AUDIT_CONTROL),
    MOAT_NAME(CAP_SETFCAP),
    MOAT_NAME(CAP_MAC_OVERRIDE),
    MOAT_NAME(CAP_MAC_ADMIN),
    MOAT_NAME(CAP_SYSLOG),
    MOAT_NAME(CAP_WAKE_ALARM),
    MOAT_NAME(CAP_BLOCK_SUSPEND),
    MOAT_NAME(CAP_AUDIT_READ),
    MOAT_NAME(CAP_PERFMON),
    MOAT_NAME(CAP_BPF),
    MOAT_NAME(CAP_CHECKPOINT_RESTORE),
};

constexpr Name kRlimits[] = {
    MOAT_NAME(RLIMIT_AS),     MOAT_NAME(RLIMIT_CORE),   MOAT_NAME(RLIMIT_CPU),        MOAT_NAME(RLIMIT_DATA),
    MOAT_NAME(RLIMIT_FSIZE),  MOAT_NAME(RLIMIT_LOCKS),  MOAT_NAME(RLIMIT_MEMLOCK),    MOAT_NAME(RLIMIT_MSGQUEUE),
    MOAT_NAME(RLIMIT_NICE),   MOAT_NAME(RLIMIT_NOFILE), MOAT_NAME(RLIMIT_NPROC),      MOAT_NAME(RLIMIT_RSS),
    MOAT_NAME(RLIMIT_RTPRIO), MOAT_NAME(RLIMIT_RTTIME), MOAT_NAME(RLIMIT_SIGPENDING), MOAT_NAME(RLIMIT_STACK),
};
constexpr Name kPolicies[] = {
    MOAT_NAME(SCHED_OTHER), MOAT_NAME(SCHED_FIFO), MOAT_NAME(SCHED_RR),
    MOAT_NAME(SCHED_BATCH), MOAT_NAME(SCHED_IDLE), {"SCHED_DEADLINE", 6},
};
#undef MOAT_NAME

template <size_t N>
int Find(const Name (&names)[N], std::string_view name) {
  for (const Name& n : names) {
    if (n.name == name) return n.number;
  }
  return -1;
}

template <size_t N>
std::string_view Find(const Name (&names)[N], int number) {
  for (const Name& n : names) {
    if (n.number == number) return n.name;
  }
  return {};
}

}  // namespace

int CapabilityNumber(std::string_view name) { return Find(kCapabilities, name); }
int RlimitNumber(std::string_view name) { return Find(kRlimits, name); }
int SchedulerPolicyNumber(std::string_view name) { return Find(kPolicies, name); }

std::string_view CapabilityName(int number) { return Find(kCapabilities, number); }
std::string_view RlimitName(int number) { return Find(kRlimits, number); }
std::string_view SchedulerPolicyName(int number) { return Find(kPolicies, number); }

}  // namespace moat::oci
