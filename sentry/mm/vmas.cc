// MemoryManager's areas: insertion and removal, announcements to mappables, accounting, the search for room.
#include <algorithm>

#include "platform/base/log.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// vm.max_map_count's default.
constexpr size_t kMaxMapCount = 65530;
// MAP_32BIT: the second gigabyte (mmap(2)).
constexpr GuestAddr kLow32Start = 0x40000000, kLow32End = 0x80000000;

constexpr uint64_t kStackGrowthStep = 128 << 10;

bool NeedsCharge(const Vma& vma, const CommitAccount& account) {
  if (vma.shared() || (vma.prot & PROT_WRITE) == 0) return false;
  return !vma.Has(kVmaNoReserve) || account.mode() == CommitAccount::Mode::kNever;
}

}  // namespace

bool MemoryManager::ValidRange(GuestAddr addr, uint64_t length, GuestAddr* end) const {
  return !__builtin_add_overflow(addr, length, end) && *end <= env_.max_address;
}

Result<void> MemoryManager::Announce(const Vma& vma) {
  if (!vma.mappable) return {};
  return vma.mappable->AddMapping(*this, vma.start, vma.end, vma.offset, vma.shared_writable());
}

void MemoryManager::Withdraw(const Vma& vma) {
  if (vma.mappable) vma.mappable->RemoveMapping(*this, vma.start, vma.end, vma.offset, vma.shared_writable());
}

void MemoryManager::CountVma(const Vma& vma, int sign) {
  const uint64_t n = sign > 0 ? vma.length() : -vma.length();
  totals_.size += n;
  totals_.peak_size = std::max(totals_.peak_size, totals_.size);
  if (vma.Has(kVmaLocked)) totals_.locked += n;
  if (vma.kind == VmaKind::kStack || vma.Has(kVmaGrowsDown)) {
    totals_.stack += n;
  } else if (vma.counts_as_data()) {
    totals_.data += n;
  } else if ((vma.prot & PROT_EXEC) != 0 && (vma.prot & PROT_WRITE) == 0) {
    totals_.exec += n;
  }
}

Result<void> MemoryManager::CheckLimits(const Vma& vma, uint64_t replaced, const MmLimits& limits) {
  if (vmas_.size() >= kMaxMapCount) return kENOMEM;
  const uint64_t length = vma.length();
  if (length > limits.as || totals_.size - replaced > limits.as - length) return kENOMEM;
  if (vma.counts_as_data() && (length > limits.data || totals_.data > limits.data - length)) return kENOMEM;
  return {};
}

Result<void> MemoryManager::InsertVma(Vma vma) {
  if (NeedsCharge(vma, *env_.commit)) {
    TRY(env_.commit->Charge(vma.length()));
    vma.flags |= kVmaAccounted;
  }
  if (Result<void> announced = Announce(vma); !announced.ok()) {
    if (vma.Has(kVmaAccounted)) env_.commit->Uncharge(vma.length());
    return announced.error();
  }
  CountVma(vma, +1);
  VmaSet::iterator it = vmas_.Insert(std::move(vma));
  JoinVmaAt(it);
  return {};
}

void MemoryManager::EraseVma(VmaSet::iterator it) {
  Vma& vma = it->second;
  Withdraw(vma);
  CountVma(vma, -1);
  if (vma.Has(kVmaAccounted)) env_.commit->Uncharge(vma.length());
  if (vma.mappable || vma.source) {
    MutexLock pages(pages_mu_);
    if (vma.mappable) deferred_.objects.push_back(std::move(vma.mappable));
    if (vma.source) deferred_.objects.push_back(std::move(vma.source));
  }
  vmas_.Erase(it);
}

VmaSet::iterator MemoryManager::SplitVma(GuestAddr addr) {
  VmaSet::iterator it = vmas_.FirstAbove(addr);
  if (it == vmas_.end() || it->second.start >= addr) return it;
  const Vma whole = it->second;
  VmaSet::iterator right = vmas_.SplitAt(addr);
  if (whole.mappable) {
    // It could map the whole, so it can map the pieces; a refusal here would only lose later invalidations.
    if (!Announce(std::prev(right)->second).ok() || !Announce(right->second).ok())
      MOAT_LOG(kWarning, "mm: a mappable refused the pieces of a mapping that it had granted");
    Withdraw(whole);
  }
  return right;
}

void MemoryManager::JoinVmaAt(VmaSet::iterator& it) {
  if (!it->second.mappable) {
    it = vmas_.Join(it);
    return;
  }
  const Vma middle = it->second;
  Vma before, after;
  if (it != vmas_.begin() && std::prev(it)->second.Continues(middle)) before = std::prev(it)->second;
  if (auto next = std::next(it); next != vmas_.end() && middle.Continues(next->second)) after = next->second;
  if (!before.mappable && !after.mappable) return;
  it = vmas_.Join(it);
  if (!Announce(it->second).ok()) MOAT_LOG(kWarning, "mm: a mappable refused to join two mappings that it had granted");
  if (before.mappable) Withdraw(before);
  Withdraw(middle);
  if (after.mappable) Withdraw(after);
}

void MemoryManager::JoinVmas(GuestAddr start, GuestAddr end) {
  VmaSet::iterator it = vmas_.FirstAbove(start == 0 ? 0 : start - 1);
  while (it != vmas_.end() && it->second.start <= end) {
    const size_t before = vmas_.size();
    JoinVmaAt(it);
    if (vmas_.size() == before) ++it;
  }
}

void MemoryManager::RemoveMappings(GuestAddr start, GuestAddr end) {
  const auto inside = [&](const PatchedCall& p) { return p.start >= start && p.start < end; };
  const bool had_code = !CutPlacedCode(placed_code_, start, end).empty();
  if (std::erase_if(patched_calls_, inside) != 0 || had_code) space_->ForgetPatches(start, end);
  if (!vmas_.Overlaps(start, end)) return;
  SplitVma(start);
  SplitVma(end);
  {
    // Pages first: what is withdrawn must not be reachable any more.
    MutexLock pages(pages_mu_);
    RemoveRuns(start, end);
  }
  VmaSet::iterator it = vmas_.FirstAbove(start);
  while (it != vmas_.end() && it->second.start < end) {
    VmaSet::iterator next = std::next(it);
    EraseVma(it);
    it = next;
  }
  // The room is as large as the gap that this made.
  const GuestAddr top = it == vmas_.end() ? mmap_base_ : std::min(mmap_base_, it->second.start);
  search_top_ = std::max(search_top_, top);
}

bool MemoryManager::FullyMapped(GuestAddr start, GuestAddr end) {
  VmaSet::iterator it = vmas_.Find(start);
  while (it != vmas_.end()) {
    if (it->second.end >= end) return true;
    VmaSet::iterator next = std::next(it);
    if (next == vmas_.end() || next->second.start != it->second.end) return false;
    it = next;
  }
  return false;
}

Result<GuestAddr> MemoryManager::FindRoom(GuestAddr hint, uint64_t length, int flags, uint64_t alignment) {
  const bool low = (flags & MAP_32BIT) != 0;
  if (hint != 0 && !low) {
    hint = std::max(PageCeil(hint), env_.min_address);
    GuestAddr end;
    if (ValidRange(hint, length, &end) && vmas_.IsFree(hint, end)) return hint;
  }
  if (low) {
    if (auto found = vmas_.FindBottomUp(std::max(kLow32Start, env_.min_address), kLow32End, length)) return *found;
    return kENOMEM;
  }
  if (alignment > kPageSize && length <= env_.max_address - alignment) {
    const uint64_t padding = alignment - kPageSize;
    if (Result<GuestAddr> found = FindRoom(0, length + padding, flags, kPageSize); found.ok()) {
      const GuestAddr start = (*found + padding) & ~(alignment - 1);
      if (search_top_ == *found) search_top_ = start;
      largest_skipped_ = std::max(largest_skipped_, padding);
      return start;
    }
  }
  if (length <= largest_skipped_) search_top_ = mmap_base_;
  if (search_top_ == mmap_base_) largest_skipped_ = 0;
  auto found = vmas_.FindTopDown(env_.min_address, search_top_, length);
  if (!found && search_top_ != mmap_base_) {
    search_top_ = mmap_base_;
    largest_skipped_ = 0;
    found = vmas_.FindTopDown(env_.min_address, mmap_base_, length);
  }
  if (found) {
    if (*found + length != search_top_) largest_skipped_ = std::max(largest_skipped_, length - kPageSize);
    search_top_ = *found;
    return *found;
  }
  // Full below the base: what is left lies above it.
  found = vmas_.FindBottomUp(std::max(mmap_base_, env_.min_address), env_.max_address, length);
  if (!found) return kENOMEM;
  return *found;
}

VmaSet::iterator MemoryManager::GrowStack(GuestAddr addr) {
  VmaSet::iterator it = vmas_.FirstAbove(addr);
  if (it == vmas_.end() || !it->second.Has(kVmaGrowsDown) || it->second.start <= addr) return vmas_.end();
  Vma& vma = it->second;
  const GuestAddr below = it == vmas_.begin() ? 0 : std::prev(it)->second.end;
  const bool gap =
      it != vmas_.begin() && std::prev(it)->second.accessible() && !std::prev(it)->second.Has(kVmaGrowsDown);
  auto allowed = [&](GuestAddr start) {
    return start >= env_.min_address && start >= below && (!gap || start - below >= kStackGuardGap) &&
           vma.end - start <= stack_limit_.load(std::memory_order_relaxed);
  };
  // More than the one page, where there is room: each step costs a fault that the host does not resolve alone.
  GuestAddr start = PageFloor(addr);
  if (!allowed(start)) return vmas_.end();
  const GuestAddr far = start & ~(kStackGrowthStep - 1);
  if (allowed(far)) start = far;
  const uint64_t growth = vma.start - start;
  if (vma.Has(kVmaAccounted) && !env_.commit->Charge(growth).ok()) return vmas_.end();
  CountVma(vma, -1);
  Vma grown = std::move(vma);
  vmas_.Erase(it);
  grown.start = start;
  CountVma(grown, +1);
  return vmas_.Insert(std::move(grown));
}

}  // namespace moat
