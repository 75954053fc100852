#include "platform/systrap/call_sites.h"

#include <signal.h>

#include "platform/systrap/cpuid_site.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/saved_flags.h"

namespace moat::systrap_platform {
namespace {

using Kind = CodePatcher::Kind;

constexpr uint64_t kThunksEnd = SYSTRAP_THUNKS + SYSTRAP_MAX_SITES * THUNK_SIZE;
constexpr uint32_t kFirstOwn = SYSTRAP_SHARED_SITES;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kSingleStep = 1 << 8;

// The part of a register state that a thunk or the trampoline has changed, put back.
void RestoreNumberAndFlags(user_regs_struct& regs) {
  if (regs.rip == CallAddress() || regs.rip >= CallRestoredAddress()) return;
  if (regs.rip >= CallFlagsAddress()) regs.eflags = FlagsFromAx(regs.eflags, regs.rax);
  regs.rax = regs.r11;
}

bool InTrampolineCall(uint64_t rip) { return rip >= CallAddress() && rip < CallEndAddress(); }
// The jump behind an answer: flags and rax are the guest's.
bool IsAnswered(uint64_t rip) {
  const uint8_t* code = TrampolineBytes(rip);
  return code[0] == 0xff && code[1] == 0xa1;
}
bool InThunks(uint64_t rip) { return rip >= SYSTRAP_THUNKS && rip < kThunksEnd; }
uint64_t ThunkAt(uint64_t rip) { return (rip - SYSTRAP_THUNKS) / THUNK_SIZE; }
bool IsPadded(const CallSite& site, GuestAddr jump) {
  return !site.numbered && (site.jump == jump || site.hop == jump);
}

}  // namespace

void CallSites::CopyFrom(const CallSites& parent) {
  std::vector<Placed> placed;
  std::vector<CallSite> sites;
  std::unordered_map<GuestAddr, size_t> paddings;
  {
    MutexLock lock(parent.mu_);
    placed = parent.placed_;
    sites = parent.sites_;
    paddings = parent.paddings_;
  }
  MutexLock lock(mu_);
  placed_ = std::move(placed);
  sites_ = std::move(sites);
  paddings_ = std::move(paddings);
}

void CallSites::Place(RefPtr<const PatchSet> patches, uint64_t bias, GuestAddr start, GuestAddr end) {
  MutexLock lock(mu_);
  placed_.push_back({std::move(patches), bias, start, end});
}

void CallSites::Forget(GuestAddr start, GuestAddr end) {
  // Patches of files lie within pages, and a page has all of its own or none.
  const GuestAddr first_page = start & ~(kPage - 1), end_page = (end + kPage - 1) & ~(kPage - 1);
  MutexLock lock(mu_);
  std::vector<Placed> rest;
  for (Placed& p : placed_) {
    if (p.end <= first_page || p.start >= end_page) {
      rest.push_back(std::move(p));
      continue;
    }
    if (p.start < first_page) rest.push_back({p.patches, p.bias, p.start, first_page});
    if (p.end > end_page) rest.push_back({p.patches, p.bias, end_page, p.end});
  }
  placed_ = std::move(rest);
  for (CallSite& site : sites_) {
    if (site.gone || site.start >= end || site.behind <= start) continue;
    site.gone = true;
    if (site.numbered) continue;
    paddings_.erase(site.jump);
    paddings_.erase(site.hop);
  }
}

std::optional<CallSite> CallSites::FindLocked(uint64_t index) const {
  if (index >= kFirstOwn) {
    if (index - kFirstOwn >= sites_.size()) return std::nullopt;
    return sites_[index - kFirstOwn];
  }
  for (const Placed& p : placed_) {
    if (!p.patches->Has(static_cast<uint32_t>(index))) continue;
    const CallSite site = shared_.at(static_cast<uint32_t>(index)).MovedBy(p.bias);
    if (p.Covers(site)) return site;
  }
  return std::nullopt;
}

std::optional<CallSite> CallSites::Find(uint64_t index) const {
  MutexLock lock(mu_);
  return FindLocked(index);
}

template <typename Wanted>
std::optional<std::pair<CallSite, uint32_t>> CallSites::FindShared(GuestAddr near, Wanted wanted) const {
  for (const Placed& p : placed_) {
    if (near < p.start || near >= p.end) continue;
    for (uint32_t index : p.patches->sites()) {
      const CallSite site = shared_.at(index).MovedBy(p.bias);
      if (p.Covers(site) && wanted(site)) return std::pair{site, index};
    }
  }
  return std::nullopt;
}

std::optional<CallSite> CallSites::FindPadded(GuestAddr jump) const {
  MutexLock lock(mu_);
  auto it = paddings_.find(jump);
  if (it != paddings_.end()) return sites_[it->second];
  if (const auto found = FindShared(jump, [jump](const CallSite& site) { return IsPadded(site, jump); }))
    return found->first;
  return std::nullopt;
}

std::optional<std::pair<CallSite, uint32_t>> CallSites::FindNumbered(GuestAddr ip) const {
  // Behind the breakpoint byte, where the second byte of the instruction was.
  const auto wanted = [ip](const CallSite& site) { return site.numbered && !site.gone && ip == site.behind - 1; };
  MutexLock lock(mu_);
  for (size_t i = 0; i < sites_.size(); ++i) {
    if (wanted(sites_[i])) return std::pair{sites_[i], static_cast<uint32_t>(kFirstOwn + i)};
  }
  return FindShared(ip, wanted);
}

std::optional<CodePatch> CallSites::Plan(const CodeWindow& code, GuestAddr behind, uint32_t number, bool alone) {
  const std::optional<SitePlan> plan = SitePlan::Make(code, behind, Kind::kCall, number, alone);
  if (!plan) return std::nullopt;
  const CallSite& site = plan->site;
  MutexLock lock(mu_);
  for (const CallSite& other : sites_) {
    // Its padding may be another's already; and a site that is back is one that somebody else rewrites.
    if (other.behind == behind) return std::nullopt;
    // Found by another thread at the same time.
    if (!other.gone && site.CollidesWith(other)) return std::nullopt;
  }
  const size_t place = sites_.size();
  if (kFirstOwn + place == SYSTRAP_MAX_SITES) return std::nullopt;
  sites_.push_back(site);
  if (!site.numbered) paddings_[site.jump] = place;
  if (site.hop != 0) paddings_[site.hop] = place;
  return plan->ToPatch(static_cast<uint32_t>(kFirstOwn + place));
}

GuestAddr CallSites::Behind(GuestAddr ip) const {
  if (!InThunks(ip)) return ip;
  std::optional<CallSite> site = Find(ThunkAt(ip));
  return site ? site->behind : ip;
}

bool CallSites::RewindMailbox(user_regs_struct& regs, Area& area) const {
  const uint32_t number = area.number, saved_flags = area.flags;
  std::optional<CallSite> site = Find(area.site / 8);
  if (!site) return false;
  regs.eflags = FlagsFromAx(regs.eflags, saved_flags);
  if (regs.rip >= MailboxAddress()) regs.rdx = area.args[2];  // the loop uses it
  const uint32_t state =
      area.state.exchange(MAILBOX_EMPTY, std::memory_order_acq_rel) & ~uint32_t{MAILBOX_SLEEPING | MAILBOX_LONG};
  const bool over = regs.rip >= MailboxAddress() && (state == MAILBOX_TAKEN || state == MAILBOX_ANSWERED);
  regs.rax = over ? area.result : number;
  regs.rip = over ? site->behind : site->at();
  return true;
}

bool CallSites::RewindThunk(user_regs_struct& regs) const {
  const uint64_t index = ThunkAt(regs.rip), offset = (regs.rip - SYSTRAP_THUNKS) % THUNK_SIZE;
  std::optional<CallSite> site = Find(index);
  if (!site) return false;
  if (site->kind == Kind::kCpuid) {
    FinishCpuidThunk(regs, offset, site->number);
    regs.rip = site->behind;
    return true;
  }
  switch (offset) {
    case THUNK_RETURN:
      regs.rip = site->behind;
      break;
    case THUNK_CALL:
      regs.rip = site->at();
      break;
    default:
      regs.rip = site->start;
  }
  return true;
}

bool CallSites::Rewind(user_regs_struct& regs, Area& area) const {
  if (InThunks(regs.rip)) return RewindThunk(regs);
  if (InCpuidCode(regs.rip)) {
    std::optional<CallSite> site = Find(FinishCpuid(regs, area));
    if (site) regs.rip = site->behind;
    return site.has_value();
  }
  if (std::optional<CallSite> site = FindPadded(regs.rip)) {
    regs.rip = site->start;
    return true;
  }
  if (!InTrampolineCall(regs.rip)) return false;
  if (regs.rip >= MailboxPostingAddress() && regs.rip < MailboxAnsweredAddress()) return RewindMailbox(regs, area);
  std::optional<CallSite> site = Find(regs.rcx / 8);
  if (!site) return false;
  if (IsAnswered(regs.rip)) {
    regs.rip = site->behind;
    return true;
  }
  if (regs.rip >= MailboxAnsweredAddress() && regs.rip < CallSlowAddress()) {
    regs.eflags = FlagsFromAx(regs.eflags, regs.rax);
    regs.rax = regs.r11;
    regs.rip = site->behind;
    return true;
  }
  RestoreNumberAndFlags(regs);
  regs.rip = site->at();
  return true;
}

bool CallSites::Redirect(user_regs_struct& regs, const Area& area, int signo) const {
  const bool memory_fault = signo == SIGSEGV || signo == SIGBUS;
  if (InCpuidCode(regs.rip) && memory_fault) {
    std::optional<CallSite> site = Find(FinishCpuid(regs, area));
    if (site) regs.rip = site->behind;
    return site.has_value();
  }
  if (InTrampolineCall(regs.rip) && regs.rip < MailboxPostingAddress() && memory_fault && !IsAnswered(regs.rip)) {
    const uint64_t index = regs.rcx / 8;
    if (!Find(index)) return false;
    RestoreNumberAndFlags(regs);
    regs.rip = SYSTRAP_THUNKS + index * THUNK_SIZE + THUNK_CALL;
    return true;
  }
  if (signo != SIGTRAP) return false;
  if ((regs.eflags & kSingleStep) != 0 &&
      (InThunks(regs.rip) || InTrampolineCall(regs.rip) || InCpuidCode(regs.rip) || FindPadded(regs.rip)))
    return true;
  const auto numbered = FindNumbered(regs.rip);
  if (!numbered) return false;
  const auto& [site, index] = *numbered;
  if (site.kind == Kind::kCpuid) {
    DoCpuid(regs);
    regs.rip = site.behind;
  } else {
    regs.rip = SYSTRAP_THUNKS + uint64_t{index} * THUNK_SIZE + THUNK_CALL;
  }
  return true;
}

}  // namespace moat::systrap_platform
