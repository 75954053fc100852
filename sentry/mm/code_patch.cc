// MemoryManager's part in faster calls: it reads the code around a hot `syscall`, asks the platform how to rewrite it,
// and writes that into private copies of the pages. The file keeps its bytes; a forked child shares the copies. What
// processes share from their start: code_place.cc.
#include <algorithm>
#include <array>
#include <cstring>

#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// What is stored in one go within so many aligned bytes is fetched in one go.
constexpr uint64_t kAtomicBlock = 8;
constexpr std::array<uint8_t, 2> kSyscall = {0x0f, 0x05};

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

bool MemoryManager::MapCallTables(const MmLimits& limits, Context* caller) {
  if (env_.call_tables_length == 0) return false;
  {
    MutexLock mapping(mapping_mu_);
    if (call_tables_ != CallTablesState::kNone) return call_tables_ == CallTablesState::kMapped;
  }
  MmapRequest request;
  request.addr = env_.call_tables;
  request.length = env_.call_tables_length;
  request.prot = PROT_READ;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE;
  request.source = MakeRef<NamedMappingSource>("[calls]");
  const bool mapped = Mmap(request, limits, caller).ok();
  MutexLock mapping(mapping_mu_);
  call_tables_ = mapped ? CallTablesState::kMapped : CallTablesState::kImpossible;
  if (!mapped) return false;
  // As Linux seals its own mappings: patched code relies on them.
  vmas_.Find(env_.call_tables)->second.flags |= kVmaSealed;
  if (env_.code == nullptr) return true;
  const FileRange shared = env_.code->tables();
  MutexLock pages(pages_mu_);
  RemoveRuns(env_.call_tables, env_.call_tables + shared.length());
  AddShared(env_.call_tables, env_.call_tables + shared.length(), shared.start, PROT_READ);
  return true;
}

void MemoryManager::PatchCall(GuestAddr behind, uint32_t number, const MmLimits& limits, Context* caller) {
  if (keep_code_.load(std::memory_order_relaxed)) return;
  GuestAddr start, end;
  {
    MutexLock mapping(mapping_mu_);
    VmaSet::iterator it = vmas_.Find(behind - 1);
    if (it == vmas_.end() || !it->second.constant_code() || (it->second.max_prot & PROT_WRITE) == 0) return;
    start = std::max(it->second.start, behind - CodeWindow::kBefore);
    end = std::min(it->second.end, behind + CodeWindow::kBehind);
  }
  if (!MapCallTables(limits, caller)) return;
  std::vector<uint8_t> bytes(end - start);
  if (ForceCopyIn(bytes.data(), start, bytes.size()) != bytes.size()) return;
  std::optional<CodePatch> patch = space_->PlanPatch({start, bytes}, behind, number);
  if (!patch) return;
  for (const CodePatch::Piece& piece : patch->tables) {
    if (ForceCopyOut(piece.address, piece.bytes.data(), piece.bytes.size()) != piece.bytes.size()) return;
  }
  if (ForceCopyOut(patch->return_slot, &behind, sizeof behind) != sizeof behind) return;
  std::vector<CodePatch::Piece> originals = patch->OriginalsIn({start, bytes});
  PatchedCall record{originals.back().address, std::move(originals.back().bytes)};
  originals.pop_back();
  record.padding = std::move(originals);
  {
    MutexLock mapping(mapping_mu_);
    patched_calls_.push_back(std::move(record));
  }
  for (const CodePatch::Piece& piece : patch->code) {
    if (!StoreCode(piece.address, piece.bytes)) break;
  }
  (void)Finish(caller);
}

void MemoryManager::RestoreCode(const CodePatch::Piece& piece) { (void)StoreCode(piece.address, piece.bytes); }

// Another thread may stand in padding, on its way: there it stays as it is, unless nobody else can be in the space.
// `keep_padding`: the range's own bytes are about to change, not its mapping: padding that is not in use any more still
// hides what the program had there.
void MemoryManager::UnpatchCalls(GuestAddr start, GuestAddr end, bool keep_padding) {
  UnplaceCode(start, end, keep_padding);
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
  const bool alone = HasOneRef();
  // The last one first: its padding may be what another has left of its own.
  for (auto it = there.rbegin(); it != there.rend(); ++it) {
    const PatchedCall& p = *it;
    if (p.original.empty()) continue;
    RestoreCode({p.start, p.original});
    for (size_t i = 0; alone && i < p.padding.size(); ++i) RestoreCode(p.padding[i]);
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
  for (const PlacedCode& p : placed_code_) {
    if (p.start >= src + n || p.end <= src) continue;
    for (const RefPtr<const CodeSite>& site : p.image->sites()) {
      if (!p.Covers(*site)) continue;
      for (const CodePatch::Piece& piece : site->originals) overlay(p.bias + piece.address, piece.bytes);
    }
  }
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
