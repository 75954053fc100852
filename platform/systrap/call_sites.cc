#include "platform/systrap/call_sites.h"

#include <signal.h>

#include <algorithm>
#include <cstring>

#include "platform/systrap/layout.h"
#include "platform/systrap/padding.h"

namespace moat::systrap_platform {
namespace {

constexpr uint64_t kThunksEnd = SYSTRAP_THUNKS + SYSTRAP_MAX_SITES * THUNK_SIZE;
constexpr uint64_t kFarJump = 7;  // jmp *disp32
constexpr uint64_t kShortJump = 2;
constexpr uint64_t kNumbered = 7;  // mov $imm32, %eax; syscall
constexpr uint64_t kShortReach = 127;
constexpr uint64_t kPage = 4096;

// Arithmetic flags, and how `lahf; seto %al` holds them.
constexpr uint64_t kLahfFlags = 0xd5, kOverflow = 1 << 11;
constexpr uint64_t kSingleStep = 1 << 8;

uint64_t FlagsFromAx(uint64_t eflags, uint64_t rax) {
  const uint64_t al = rax & 0xff, ah = (rax >> 8) & 0xff;
  // `add $0x7f, %al` may have been executed already.
  const bool overflow = al == 1 || al == 0x80;
  return (eflags & ~(kLahfFlags | kOverflow)) | (ah & kLahfFlags) | (overflow ? kOverflow : 0);
}

CodePatch::Piece Word(GuestAddr at, uint64_t value, size_t size) {
  CodePatch::Piece piece{at, std::vector<uint8_t>(size)};
  memcpy(piece.bytes.data(), &value, size);
  return piece;
}

CodePatch::Piece FarJump(GuestAddr at, uint64_t index) {
  const uint64_t table = SYSTRAP_TABLES + index * 8;
  return {at,
          {0xff, 0x24, 0x25, static_cast<uint8_t>(table), static_cast<uint8_t>(table >> 8),
           static_cast<uint8_t>(table >> 16), static_cast<uint8_t>(table >> 24)}};
}
CodePatch::Piece ShortJump(GuestAddr at, GuestAddr to) {
  return {at, {0xeb, static_cast<uint8_t>(to - at - kShortJump)}};
}
// What is left of the padding stays padding, of whole instructions: the next site is found by decoding it.
CodePatch::Piece Filled(CodePatch::Piece piece, size_t length) {
  piece.bytes.resize(length, 0xcc);
  return piece;
}

// Two paddings, or one, by which a site reaches its thunk.
struct Route {
  const Padding *jump, *hop;
};
// `paddings`: in order, by their distance from the site's end.
std::optional<Route> FindRoute(std::span<const Padding> paddings) {
  for (const Padding& jump : paddings) {
    if (jump.length < kFarJump) continue;
    if (jump.offset <= kShortReach) return Route{&jump, nullptr};
    for (const Padding& hop : paddings) {
      if (hop.offset > kShortReach || hop.offset >= jump.offset) break;
      if (hop.length >= kShortJump && jump.offset - (hop.offset + kShortJump) <= kShortReach) return Route{&jump, &hop};
    }
  }
  return std::nullopt;
}

// What the guest takes away page by page takes the whole patch or nothing of it.
bool SamePage(GuestAddr start, GuestAddr end) { return start / kPage == (end - 1) / kPage; }
// Bytes from `at` on that are in the page of the byte before it.
size_t RestOfPage(GuestAddr at) { return kPage - 1 - (at - 1) % kPage; }

bool Overlap(GuestAddr a, uint64_t a_length, GuestAddr b, uint64_t b_length) {
  return a < b + b_length && b < a + a_length;
}
// Whether both have taken the same padding.
bool Collide(const CallSite& a, const CallSite& b) {
  return Overlap(a.jump, kFarJump, b.jump, kFarJump) || Overlap(a.jump, kFarJump, b.hop, kShortJump) ||
         Overlap(a.hop, kShortJump, b.jump, kFarJump) || (a.hop != 0 && a.hop == b.hop);
}

// The part of a register state that a thunk or the trampoline has changed, put back.
void RestoreNumberAndFlags(user_regs_struct& regs) {
  if (regs.rip == CallAddress() || regs.rip >= CallRestoredAddress()) return;
  if (regs.rip >= CallFlagsAddress()) regs.eflags = FlagsFromAx(regs.eflags, regs.rax);
  regs.rax = regs.r11;
}

// Where a thread is whose call has its number, which need not be the one that a numbered site loads.
GuestAddr CallOf(const CallSite& site) { return site.behind - kSyscallLength; }

bool InTrampolineCall(uint64_t rip) { return rip >= CallAddress() && rip < CallEndAddress(); }
// The jump behind an answer: flags and rax are the guest's.
bool IsAnswered(uint64_t rip) {
  const uint8_t* code = TrampolineBytes(rip);
  return code[0] == 0xff && code[1] == 0xa1;
}
bool InThunks(uint64_t rip) { return rip >= SYSTRAP_THUNKS && rip < kThunksEnd; }

}  // namespace

void CallSites::CopyFrom(const CallSites& parent) {
  std::vector<CallSite> sites;
  std::unordered_map<GuestAddr, size_t> paddings;
  {
    MutexLock lock(parent.mu_);
    sites = parent.sites_;
    paddings = parent.paddings_;
  }
  MutexLock lock(mu_);
  sites_ = std::move(sites);
  paddings_ = std::move(paddings);
}

void CallSites::Forget(GuestAddr start, GuestAddr end) {
  MutexLock lock(mu_);
  for (CallSite& site : sites_) {
    if (site.gone || site.start >= end || site.behind <= start) continue;
    site.gone = true;
    if (site.numbered) continue;
    paddings_.erase(site.jump);
    paddings_.erase(site.hop);
  }
}

std::optional<CallSite> CallSites::Find(uint64_t index) const {
  MutexLock lock(mu_);
  if (index >= sites_.size()) return std::nullopt;
  return sites_[index];
}

std::optional<CallSite> CallSites::FindPadded(GuestAddr jump) const {
  MutexLock lock(mu_);
  auto it = paddings_.find(jump);
  if (it == paddings_.end()) return std::nullopt;
  return sites_[it->second];
}

std::optional<CodePatch> CallSites::Plan(const CodeWindow& code, GuestAddr behind, uint32_t number, bool alone) {
  if (behind < code.start + kNumbered || behind >= code.start + code.bytes.size()) return std::nullopt;
  const size_t at = behind - code.start;
  if (code.bytes[at - 2] != 0x0f || code.bytes[at - 1] != 0x05) return std::nullopt;
  std::vector<Padding> paddings;
  std::optional<Route> route;
  // Two bytes of the same eight change at once for whoever executes them.
  const GuestAddr call = behind - kSyscallLength;
  if (SamePage(call, behind) && (alone || call % 8 != 7)) {
    paddings = FindPaddings(code.bytes.subspan(at, std::min(code.bytes.size() - at, RestOfPage(behind))), behind);
    route = FindRoute(paddings);
  }
  uint32_t immediate;
  memcpy(&immediate, &code.bytes[at - 6], sizeof immediate);
  const bool numbered =
      alone && code.bytes[at - kNumbered] == 0xb8 && immediate == number && SamePage(behind - kNumbered, behind);
  CallSite site{behind - kNumbered, behind, true, behind - kNumbered};
  // Padding is left to who has nothing else, unless there is plenty.
  if (!numbered || (route && route->hop == nullptr && route->jump->length >= 2 * kFarJump)) {
    if (!route) return std::nullopt;
    site = {call, behind, false, behind + route->jump->offset};
    if (route->hop != nullptr) site.hop = behind + route->hop->offset;
  }

  uint64_t index;
  {
    MutexLock lock(mu_);
    for (const CallSite& other : sites_) {
      // Its padding may be another's already; and a site that is back is one that somebody else rewrites.
      if (other.behind == behind) return std::nullopt;
      // Found by another thread at the same time.
      if (!other.gone && Collide(site, other)) return std::nullopt;
    }
    index = sites_.size();
    if (index == SYSTRAP_MAX_SITES) return std::nullopt;
    sites_.push_back(site);
    if (!site.numbered) paddings_[site.jump] = index;
    if (site.hop != 0) paddings_[site.hop] = index;
  }
  const uint64_t thunk = SYSTRAP_THUNKS + index * THUNK_SIZE + (site.numbered ? THUNK_NUMBERED : 0);
  CodePatch patch;
  patch.tables = {Word(SYSTRAP_TABLES + index * 8, thunk, 8), Word(SYSTRAP_RETURNS + index * 8, behind, 8),
                  Word(SYSTRAP_NUMBERS + index * 8, number, 8)};
  if (site.numbered) {
    patch.code = {FarJump(site.jump, index)};
  } else {
    patch.code = {Filled(FarJump(site.jump, index), route->jump->length)};
    if (site.hop != 0) patch.code.push_back(Filled(ShortJump(site.hop, site.jump), route->hop->length));
    patch.code.push_back(ShortJump(site.start, site.hop != 0 ? site.hop : site.jump));
  }
  return patch;
}

GuestAddr CallSites::Behind(GuestAddr ip) const {
  if (!InThunks(ip)) return ip;
  std::optional<CallSite> site = Find((ip - SYSTRAP_THUNKS) / THUNK_SIZE);
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
  regs.rip = over ? site->behind : CallOf(*site);
  return true;
}

bool CallSites::Rewind(user_regs_struct& regs, Area& area) const {
  if (InThunks(regs.rip)) {
    std::optional<CallSite> site = Find((regs.rip - SYSTRAP_THUNKS) / THUNK_SIZE);
    if (!site) return false;
    switch ((regs.rip - SYSTRAP_THUNKS) % THUNK_SIZE) {
      case THUNK_RETURN:
        regs.rip = site->behind;
        break;
      case THUNK_CALL:
        regs.rip = CallOf(*site);
        break;
      default:
        regs.rip = site->start;
    }
    return true;
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
  regs.rip = CallOf(*site);
  return true;
}

bool CallSites::Redirect(user_regs_struct& regs, int signo) const {
  if (InTrampolineCall(regs.rip) && regs.rip < MailboxPostingAddress() && (signo == SIGSEGV || signo == SIGBUS) &&
      !IsAnswered(regs.rip)) {
    const uint64_t index = regs.rcx / 8;
    if (!Find(index)) return false;
    RestoreNumberAndFlags(regs);
    regs.rip = SYSTRAP_THUNKS + index * THUNK_SIZE + THUNK_CALL;
    return true;
  }
  if (signo != SIGTRAP) return false;
  if ((regs.eflags & kSingleStep) != 0 && (InThunks(regs.rip) || InTrampolineCall(regs.rip) || FindPadded(regs.rip)))
    return true;
  // Behind the breakpoint byte, where the second byte of `syscall` was.
  MutexLock lock(mu_);
  for (size_t index = 0; index < sites_.size(); ++index) {
    if (!sites_[index].numbered || sites_[index].gone || regs.rip != sites_[index].behind - 1) continue;
    regs.rip = SYSTRAP_THUNKS + index * THUNK_SIZE + THUNK_CALL;
    return true;
  }
  return false;
}

}  // namespace moat::systrap_platform
