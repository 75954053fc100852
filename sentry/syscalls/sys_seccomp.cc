// Source: seccomp(2).
#include <linux/seccomp.h>

#include <algorithm>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/seccomp_filter.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/seccomp_calls.h"

namespace moat {

namespace {

// struct sock_fprog as the guest lays it out.
struct GuestProgram {
  uint16_t length;
  uint16_t pad[3];
  uint64_t filter;
};
static_assert(sizeof(GuestProgram) == 16);

constexpr uint32_t kKnownFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW |
                                 SECCOMP_FILTER_FLAG_TSYNC_ESRCH;

}  // namespace

Result<int64_t> SetSeccompStrict(Task& t) {
  if (t.seccomp_mode() != SECCOMP_MODE_DISABLED && t.seccomp_mode() != SECCOMP_MODE_STRICT) return kEINVAL;
  t.SetSeccompMode(SECCOMP_MODE_STRICT);
  return 0;
}

Result<int64_t> SetSeccompFilter(Task& t, uint32_t flags, GuestAddr program_at) {
  // SECCOMP_FILTER_FLAG_NEW_LISTENER is not offered: user notification would need a supervisor's descriptor.
  if ((flags & ~kKnownFlags) != 0) return kEINVAL;
  if (t.seccomp_mode() == SECCOMP_MODE_STRICT) return kEINVAL;
  const GuestProgram program = TRY(UserIn<GuestProgram>(program_at).Read(t.memory()));
  if (program.length == 0 || program.length > BPF_MAXINSNS) return kEINVAL;
  std::vector<sock_filter> code = TRY(UserIn<sock_filter>(program.filter).ReadArray(t.memory(), program.length));
  if (!t.cred().no_new_privs && !t.cred().HasCapability(CAP_SYS_ADMIN)) return kEACCES;
  TRY(CheckSeccompProgram(code));
  const bool log = (flags & SECCOMP_FILTER_FLAG_LOG) != 0;
  RefPtr<SeccompFilter> mine = t.seccomp_filter();
  auto filter = MakeRef<SeccompFilter>(std::move(code), log, mine);
  if (filter->total() > kMaxSeccompInstructions) return kENOMEM;
  if ((flags & SECCOMP_FILTER_FLAG_TSYNC) != 0) {
    const std::vector<RefPtr<Task>> others = t.thread_group().tasks();
    for (const RefPtr<Task>& other : others) {
      if (other == &t) continue;
      // Only threads whose filters are a beginning of ours can follow.
      RefPtr<SeccompFilter> theirs = other->seccomp_filter();
      if (other->seccomp_mode() == SECCOMP_MODE_STRICT || (theirs && !theirs->IsAncestorOf(mine.get()))) {
        if ((flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) != 0) return kESRCH;
        return other->tid();
      }
    }
    for (const RefPtr<Task>& other : others) {
      if (other == &t) continue;
      other->SetSeccompFilter(filter);
      other->SetSeccompMode(SECCOMP_MODE_FILTER);
    }
  }
  t.SetSeccompFilter(std::move(filter));
  t.SetSeccompMode(SECCOMP_MODE_FILTER);
  return 0;
}

Result<int64_t> SysSeccomp(Task& t, unsigned operation, unsigned flags, GuestAddr args) {
  switch (operation) {
    case SECCOMP_SET_MODE_STRICT:
      if (flags != 0 || args != 0) return kEINVAL;
      return SetSeccompStrict(t);
    case SECCOMP_SET_MODE_FILTER:
      return SetSeccompFilter(t, flags, args);
    case SECCOMP_GET_ACTION_AVAIL: {
      if (flags != 0) return kEINVAL;
      const uint32_t action = TRY(UserIn<uint32_t>(args).Read(t.memory()));
      constexpr uint32_t kOffered[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                                       SECCOMP_RET_ERRNO,        SECCOMP_RET_LOG,         SECCOMP_RET_ALLOW,
                                       SECCOMP_RET_TRACE};
      if (std::find(std::begin(kOffered), std::end(kOffered), action) == std::end(kOffered)) return kEOPNOTSUPP;
      return 0;
    }
    default:
      return kEINVAL;
  }
}

}  // namespace moat
