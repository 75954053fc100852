// Patched call sites of one address space. A hot `syscall` instruction of the guest is rewritten to jump to a thunk,
// which answers calls that only concern the caller from the thread's area (trampoline.S), and makes the others as
// `syscall` would. Two ways:
//   near      the 2 bytes of `syscall` become a short jump to padding behind a function's end, where 7 bytes jump on;
//             where those are too far away, another short jump in padding on the way leads to them;
//   numbered  `mov $nr, %eax; syscall` becomes the 7 bytes; a jump to its `syscall` then meets a breakpoint.
// Whatever interrupts a thread in a thunk finds it as if it were at the site: before the call, or behind it.
// Thread-safe. Lock: kLeaf.
#ifndef MOAT_PLATFORM_SYSTRAP_CALL_SITES_H_
#define MOAT_PLATFORM_SYSTRAP_CALL_SITES_H_

#include <sys/user.h>

#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/platform.h"
#include "platform/systrap/layout.h"

namespace moat::systrap_platform {

struct CallSite {
  GuestAddr start;   // first overwritten byte
  GuestAddr behind;  // the address behind its `syscall`
  bool numbered;
  GuestAddr jump;     // the 7 bytes that go on to the thunk
  GuestAddr hop = 0;  // the short jump on the way there, if there is one
  bool gone = false;  // the guest has written or mapped something else there
};

class CallSites {
 public:
  CallSites() = default;
  // fork: the child's guest memory has the same patches.
  void CopyFrom(const CallSites& parent);

  // How to rewrite the site behind which `behind` lies; nullopt when it cannot be done safely. `alone`: no other thread
  // of the space can be executing the bytes that change.
  std::optional<CodePatch> Plan(const CodeWindow& code, GuestAddr behind, uint32_t number, bool alone);

  // The guest's bytes are in [start, end) again, or none.
  void Forget(GuestAddr start, GuestAddr end);

  // Any address of ours that a call came from -> the address behind the guest's own `syscall`.
  GuestAddr Behind(GuestAddr ip) const;
  // Moves `regs` out of thunks and trampoline. A call that waits in the thread's mailbox is withdrawn, or ends if it
  // has its answer; one that the sentry has taken ends, and the result is the caller's to set. False: it was nowhere
  // there.
  bool Rewind(user_regs_struct& regs, Area& area) const;
  // After a fault: true when it was one of the thunk's own making (a gs base of the guest's) or a jump into a numbered
  // site, where `regs` then go on with the real call; or a single step within what is one instruction to the guest.
  bool Redirect(user_regs_struct& regs, int signo) const;

 private:
  std::optional<CallSite> Find(uint64_t index) const;
  std::optional<CallSite> FindPadded(GuestAddr jump) const;
  bool RewindMailbox(user_regs_struct& regs, Area& area) const;

  mutable Mutex mu_{LockRank::kLeaf};
  std::vector<CallSite> sites_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<GuestAddr, size_t> paddings_ ABSL_GUARDED_BY(mu_);  // jump and hop of near sites -> place
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CALL_SITES_H_
