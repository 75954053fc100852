// MemoryManager's part in code that processes share (sentry/code): where a file is mapped as code, pages in which sites
// were rewritten take the place of the file's own, and the address space gets its own part of the tables.
#include <algorithm>

#include "sentry/code/code_file.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

bool MayBeShared(const Vma& vma) { return vma.mappable && vma.constant_code(); }

CodePatch::Piece Moved(CodePatch::Piece piece, uint64_t bias) {
  piece.address += bias;
  return piece;
}

}  // namespace

void MemoryManager::PlaceCode(const Vma& vma, When when, const MmLimits& limits, Context* caller) {
  if (env_.code == nullptr || !MayBeShared(vma) || keep_code_.load(std::memory_order_relaxed)) return;
  const RefPtr<CodeFile> file = CodeFile::Of(*vma.mappable, *env_.code);
  if (!file) return;
  const RefPtr<const CodeImage> image = file->NoteMapped(vma.mappable, vma.offset, vma.offset + vma.length());
  if (!image || !MapCallTables(limits, caller)) return;
  const PlacedCode placed{image, vma.start - vma.offset, vma.start, vma.end};
  {
    MutexLock mapping(mapping_mu_);
    // A site has one address in a process: who maps a file twice has the second one as it is.
    const bool has_it = std::ranges::any_of(image->sites(), [&](const RefPtr<const CodeSite>& site) {
      mapping_mu_.AssertHeld();
      return placed.Covers(*site) && std::ranges::any_of(placed_code_, [&](const PlacedCode& p) {
               return p.image->patches()->Has(site->patch.site) && p.Covers(*site);
             });
    });
    if (has_it || !StillMaps(vma, vma.start, vma.length()) || !PlacePieces(vma, *image, when)) return;
    placed_code_.push_back(placed);
  }
  space_->PlacePatches(image->patches(), placed.bias, vma.start, vma.end);
  const bool complete = std::ranges::all_of(image->sites(), [&](const RefPtr<const CodeSite>& site) {
    const GuestAddr behind = placed.bias + site->behind;
    return !placed.Covers(*site) || ForceCopyOut(site->patch.return_slot, &behind, sizeof behind) == sizeof behind;
  });
  if (complete) return;
  // No memory for the table. No guest code runs there yet: the file's own pages come with the first touch.
  space_->ForgetPatches(vma.start, vma.end);
  MutexLock mapping(mapping_mu_);
  (void)CutPlacedCode(placed_code_, vma.start, vma.end);
  MutexLock pages(pages_mu_);
  RemoveRuns(vma.start, vma.end);
}

bool MemoryManager::PlacePieces(const Vma& vma, const CodeImage& image, When when) {
  MutexLock pages(pages_mu_);
  struct Place {
    GuestAddr start, end;
    uint64_t memory;
  };
  std::vector<Place> placed;
  for (const CodeImage::Piece& piece : image.pieces()) {
    const uint64_t from = std::max(piece.start, vma.offset), to = std::min(piece.end, vma.offset + vma.length());
    if (from >= to) continue;
    const GuestAddr start = vma.start + (from - vma.offset), end = vma.start + (to - vma.offset);
    // All of them or none: a site in one that is not there would be taken for rewritten.
    PageMap::iterator there = pages_.Find(start);
    if (there == pages_.end() || there->second.end < end || there->second.owned) return false;
    placed.push_back({start, end, piece.memory + (from - piece.start)});
  }
  for (const Place& place : placed) {
    pages_.SplitAt(place.start);
    pages_.SplitAt(place.end);
    PageMap::iterator there = pages_.Find(place.start);
    ReleaseRun(there->second);
    pages_.Erase(there);
    AddShared(place.start, place.end, place.memory, vma.prot, when);
  }
  ForgetSpans();
  return !placed.empty();
}

void MemoryManager::NoteCalls(Context& context) {
  if (env_.code == nullptr || keep_code_.load(std::memory_order_relaxed)) return;
  struct Called {
    RefPtr<Mappable> object;
    uint64_t behind;
    uint32_t number, calls;
  };
  std::vector<Called> called;
  {
    MutexLock mapping(mapping_mu_);
    context.TakeCalls([&](GuestAddr behind, uint32_t number, uint32_t calls) {
      mapping_mu_.AssertHeld();
      VmaSet::iterator it = vmas_.Find(behind - 1);
      if (it == vmas_.end() || !MayBeShared(it->second)) return;
      called.push_back({it->second.mappable, it->second.OffsetOf(behind), number, calls});
    });
  }
  std::ranges::sort(called, {}, [](const Called& c) { return c.object.get(); });
  for (size_t i = 0; i < called.size();) {
    const RefPtr<Mappable>& object = called[i].object;
    const RefPtr<CodeFile> file = CodeFile::Of(*object, *env_.code);
    for (; i < called.size() && called[i].object == object.get(); ++i) {
      if (file) file->NoteCalls(called[i].behind, called[i].number, called[i].calls);
    }
    if (file) file->BuildWanted(object);
  }
}

void MemoryManager::UnplaceCode(GuestAddr start, GuestAddr end, bool keep_padding) {
  const bool alone = HasOneRef();
  std::vector<PlacedCode> cut;
  {
    MutexLock mapping(mapping_mu_);
    cut = CutPlacedCode(placed_code_, start, end);
    for (const PlacedCode& p : cut) {
      for (const RefPtr<const CodeSite>& site : p.image->sites()) {
        if (!keep_padding || !p.Covers(*site) || site->originals.size() == 1) continue;
        PatchedCall padding{p.bias + site->originals.back().address, {}};
        for (size_t i = 0; i + 1 < site->originals.size(); ++i)
          padding.padding.push_back(Moved(site->originals[i], p.bias));
        patched_calls_.push_back(std::move(padding));
      }
    }
  }
  for (const PlacedCode& p : cut) {
    for (const RefPtr<const CodeSite>& site : p.image->sites()) {
      if (!p.Covers(*site)) continue;
      RestoreCode(Moved(site->originals.back(), p.bias));
      for (size_t i = 0; alone && i + 1 < site->originals.size(); ++i) RestoreCode(Moved(site->originals[i], p.bias));
    }
    space_->ForgetPatches(p.start, p.end);
  }
}

}  // namespace moat
