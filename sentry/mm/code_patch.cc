// MemoryManager's part in faster calls: it reads the code around a hot `syscall`, asks the platform how to rewrite it,
// and writes that into private copies of the pages. The file keeps its bytes; a forked child shares the copies.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// What a platform may want to see before and behind a site.
constexpr uint64_t kBefore = 16, kBehind = 320;
// What is stored in one go within so many aligned bytes is fetched in one go.
constexpr uint64_t kAtomicBlock = 8;
constexpr std::array<uint8_t, 2> kSyscall = {0x0f, 0x05};

bool IsConstantCode(const Vma& vma) {
  return !vma.shared() && vma.kind == VmaKind::kPlain && (vma.prot & PROT_EXEC) != 0 && (vma.prot & PROT_READ) != 0 &&
         (vma.prot & PROT_WRITE) == 0 && (vma.max_prot & PROT_WRITE) != 0;
}

}  // namespace

bool MemoryManager::StoreCode(GuestAddr addr, const std::vector<uint8_t>& bytes) {
  const GuestAddr block = addr & ~(kAtomicBlock - 1);
  if (addr + bytes.size() > block + kAtomicBlock || bytes.size() > sizeof(uint32_t))
    return ForceCopyOut(addr, bytes.data(), bytes.size()) == bytes.size();
  // Other threads may be executing it: they see the old instruction or the new one.
  const GuestAddr word = std::min(addr, block + kAtomicBlock - sizeof(uint32_t));
  uint32_t old;
  if (ForceCopyIn(&old, word, sizeof old) != sizeof old) return false;
  uint32_t changed = old;
  memcpy(reinterpret_cast<uint8_t*>(&changed) + (addr - word), bytes.data(), bytes.size());
  return ForceStore(word, old, changed);
}

void MemoryManager::PatchCall(GuestAddr behind, uint32_t number, const MmLimits& limits, Context* caller) {
  if (env_.call_tables_length == 0 || keep_code_.load(std::memory_order_relaxed)) return;
  GuestAddr start, end;
  bool need_tables;
  {
    MutexLock mapping(mapping_mu_);
    if (call_tables_ == CallTablesState::kImpossible) return;
    need_tables = call_tables_ == CallTablesState::kNone;
    VmaSet::iterator it = vmas_.Find(behind - 1);
    if (it == vmas_.end() || !IsConstantCode(it->second)) return;
    start = std::max(it->second.start, behind - kBefore);
    end = std::min(it->second.end, behind + kBehind);
  }
  if (need_tables) {
    MmapRequest request;
    request.addr = env_.call_tables;
    request.length = env_.call_tables_length;
    request.prot = PROT_READ;
    request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE;
    request.source = MakeRef<NamedMappingSource>("[calls]");
    const bool mapped = Mmap(request, limits, caller).ok();
    MutexLock mapping(mapping_mu_);
    call_tables_ = mapped ? CallTablesState::kMapped : CallTablesState::kImpossible;
    if (!mapped) return;
    // As Linux seals its own mappings: patched code relies on them.
    vmas_.Find(env_.call_tables)->second.flags |= kVmaSealed;
  }
  std::vector<uint8_t> bytes(end - start);
  if (ForceCopyIn(bytes.data(), start, bytes.size()) != bytes.size()) return;
  std::optional<CodePatch> patch = space_->PlanPatch({start, bytes}, behind, number);
  if (!patch) return;
  for (const CodePatch::Piece& piece : patch->tables) {
    if (ForceCopyOut(piece.address, piece.bytes.data(), piece.bytes.size()) != piece.bytes.size()) return;
  }
  auto original = [&](const CodePatch::Piece& piece) {
    const auto from = bytes.begin() + static_cast<ptrdiff_t>(piece.address - start);
    return std::vector<uint8_t>(from, from + static_cast<ptrdiff_t>(piece.bytes.size()));
  };
  PatchedCall record{patch->code.back().address, original(patch->code.back())};
  for (const CodePatch::Piece& piece : std::span(patch->code).first(patch->code.size() - 1)) {
    record.padding.push_back({piece.address, original(piece)});
  }
  {
    MutexLock mapping(mapping_mu_);
    patched_calls_.push_back(std::move(record));
  }
  for (const CodePatch::Piece& piece : patch->code) {
    if (!StoreCode(piece.address, piece.bytes)) break;
  }
  (void)Finish(caller);
}

// `keep_padding`: the range's own bytes are about to change, not its mapping: padding that is not in use any more still
// hides what the program had there.
void MemoryManager::UnpatchCalls(GuestAddr start, GuestAddr end, bool keep_padding) {
  std::vector<PatchedCall> there;
  {
    MutexLock mapping(mapping_mu_);
    for (PatchedCall& p : patched_calls_) {
      const bool site = p.start < end && p.start + p.original.size() > start;
      const bool padding = std::ranges::any_of(p.padding, [&](const CodePatch::Piece& piece) {
        return piece.address < end && piece.address + piece.bytes.size() > start;
      });
      if (!site && !padding) continue;
      there.push_back(p);
      p.original.clear();
      if (padding || !keep_padding) p.padding.clear();
    }
    std::erase_if(patched_calls_, [](const PatchedCall& p) { return p.original.empty() && p.padding.empty(); });
  }
  for (const PatchedCall& p : there) {
    if (p.original.empty()) continue;
    (void)StoreCode(p.start, p.original);
    space_->ForgetPatches(p.start, p.start + p.original.size());
  }
}

bool MemoryManager::IsCall(GuestAddr ip) {
  {
    MutexLock mapping(mapping_mu_);
    VmaSet::iterator it = vmas_.Find(ip);
    if (it == vmas_.end() || it->second.end - ip < kSyscall.size() || (it->second.prot & PROT_EXEC) == 0) return false;
  }
  std::array<uint8_t, kSyscall.size()> bytes;
  return TracerCopyIn(bytes.data(), ip, bytes.size()) == bytes.size() && bytes == kSyscall;
}

size_t MemoryManager::TracerCopyIn(void* dst, GuestAddr src, size_t n) {
  n = ForceCopyIn(dst, src, n);
  auto overlay = [&](GuestAddr at, const std::vector<uint8_t>& bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (at + i >= src && at + i - src < n) static_cast<uint8_t*>(dst)[at + i - src] = bytes[i];
    }
  };
  MutexLock mapping(mapping_mu_);
  for (const PatchedCall& p : patched_calls_) {
    overlay(p.start, p.original);
    for (const CodePatch::Piece& piece : p.padding) overlay(piece.address, piece.bytes);
  }
  return n;
}

size_t MemoryManager::TracerCopyOut(GuestAddr dst, const void* src, size_t n) {
  GuestAddr end;
  if (__builtin_add_overflow(dst, n, &end)) return 0;
  UnpatchCalls(dst, end, true);
  return ForceCopyOut(dst, src, n);
}

}  // namespace moat
