// Rewritten sites of one address space. A hot `syscall` instruction of the guest is rewritten to jump to a thunk, which
// answers calls that only concern the caller from the thread's area (trampoline.S), and makes the others as `syscall`
// would; site_plan.h says how. Those in files' code are the same in all processes (shared_sites.h), a `cpuid` among
// them; others are the space's own.
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
#include "platform/systrap/shared_sites.h"

namespace moat::systrap_platform {

class CallSites {
 public:
  // `shared` must outlive it.
  explicit CallSites(const SharedSites& shared) : shared_(shared) {}
  // fork: the child's guest memory has the same patches.
  void CopyFrom(const CallSites& parent);

  // How to rewrite the site behind which `behind` lies; nullopt when it cannot be done safely. `alone`: no other thread
  // of the space can be executing the bytes that change.
  std::optional<CodePatch> Plan(const CodeWindow& code, GuestAddr behind, uint32_t number, bool alone);

  // See AddressSpace::PlacePatches.
  void Place(RefPtr<const PatchSet> patches, uint64_t bias, GuestAddr start, GuestAddr end);
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
  bool Redirect(user_regs_struct& regs, const Area& area, int signo) const;

 private:
  // Shared sites that are placed at [start, end).
  struct Placed {
    RefPtr<const PatchSet> patches;
    uint64_t bias;
    GuestAddr start, end;
    bool Covers(const CallSite& site) const { return site.start >= start && site.behind <= end; }
  };
  std::optional<CallSite> Find(uint64_t index) const;
  std::optional<CallSite> FindLocked(uint64_t index) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<CallSite> FindPadded(GuestAddr jump) const;
  // The one whose breakpoint is in front of `ip`, and its index.
  std::optional<std::pair<CallSite, uint32_t>> FindNumbered(GuestAddr ip) const;
  template <typename Wanted>
  std::optional<std::pair<CallSite, uint32_t>> FindShared(GuestAddr near, Wanted wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool RewindMailbox(user_regs_struct& regs, Area& area) const;
  bool RewindThunk(user_regs_struct& regs) const;

  const SharedSites& shared_;
  mutable Mutex mu_{LockRank::kLeaf};
  std::vector<Placed> placed_ ABSL_GUARDED_BY(mu_);
  std::vector<CallSite> sites_ ABSL_GUARDED_BY(mu_);                     // the first one's index is kFirstOwn
  std::unordered_map<GuestAddr, size_t> paddings_ ABSL_GUARDED_BY(mu_);  // jump and hop of near sites_ -> place
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CALL_SITES_H_
