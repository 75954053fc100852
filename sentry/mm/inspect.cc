// MemoryManager as /proc shows it: areas, totals.
#include <algorithm>

#include "sentry/mm/committed.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// Pieces of the memory file up to this size count as a whole; larger ones are often hardly touched (thread stacks,
// heaps), so the host is asked.
constexpr uint64_t kAskAbove = 64 << 10;
// Calls to the host for one question at most.
constexpr int kMaxProbes = 2000;

// Bytes of `range` with memory behind them.
uint64_t Committed(int fd, FileRange range, int* probes) {
  if (range.length() <= kAskAbove) return range.length();
  uint64_t total = 0;
  *probes += VisitCommitted(fd, range, kMaxProbes - *probes, [&](FileRange piece) { total += piece.length(); });
  return total;
}

struct Piece {
  FileRange range;
  bool owned, cow, in_memory_file;
};

}  // namespace

void MemoryManager::VisitVmas(GuestAddr from, absl::FunctionRef<bool(const VmaInfo&)> visit, bool measure) {
  int probes = 0;
  for (;;) {
    VmaInfo info;
    std::vector<Piece> pieces;
    {
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator it = vmas_.FirstAbove(from);
      if (it == vmas_.end()) return;
      info.vma = it->second;
      MutexLock pages(pages_mu_);
      for (auto r = pages_.FirstAbove(info.vma.start); measure && r != pages_.end() && r->second.start < info.vma.end;
           ++r) {
        const PageRun& run = r->second;
        const GuestAddr start = std::max(run.start, info.vma.start), end = std::min(run.end, info.vma.end);
        const uint64_t offset = run.OffsetOf(start);
        pieces.push_back({{offset, offset + (end - start)}, run.owned, run.cow, run.in_memory_file});
      }
    }
    for (const Piece& p : pieces) {
      const uint64_t bytes = p.in_memory_file ? Committed(env_.memory->fd(), p.range, &probes) : p.range.length();
      info.rss += bytes;
      if (p.owned) info.anon += bytes;
      if (!p.owned || p.cow) info.shared += bytes;
      if (p.owned && !p.cow) info.dirty += bytes;
    }
    from = info.vma.end;
    if (!visit(info)) return;
  }
}

MmUsage MemoryManager::Usage() {
  MmUsage usage;
  std::vector<Piece> pieces;
  {
    MutexLock mapping(mapping_mu_);
    usage = totals_;
    MutexLock pages(pages_mu_);
    pieces.reserve(pages_.size());
    for (const auto& [start, run] : pages_) pieces.push_back({run.range(), run.owned, run.cow, run.in_memory_file});
  }
  std::vector<FileRange> large[2];  // of shared objects, and owned
  for (const Piece& p : pieces) {
    if (!p.in_memory_file) {
      usage.rss_file += p.range.length();
    } else if (p.range.length() > kAskAbove) {
      large[p.owned].push_back(p.range);
    } else {
      (p.owned ? usage.rss_anon : usage.rss_shmem) += p.range.length();
    }
  }
  usage.rss_shmem += CountCommitted(env_.memory->fd(), std::move(large[false]), kMaxProbes);
  usage.rss_anon += CountCommitted(env_.memory->fd(), std::move(large[true]), kMaxProbes);
  usage.rss = usage.rss_anon + usage.rss_file + usage.rss_shmem;
  MutexLock mapping(mapping_mu_);
  totals_.peak_rss = usage.peak_rss = std::max(totals_.peak_rss, usage.rss);
  return usage;
}

MmImage MemoryManager::image() {
  MutexLock mapping(mapping_mu_);
  return image_;
}
void MemoryManager::set_image(MmImage image) {
  MutexLock mapping(mapping_mu_);
  image_ = std::move(image);
}
RefPtr<RefCounted> MemoryManager::executable() {
  MutexLock mapping(mapping_mu_);
  return executable_;
}
void MemoryManager::set_executable(RefPtr<RefCounted> executable) {
  MutexLock mapping(mapping_mu_);
  std::swap(executable_, executable);
}

}  // namespace moat
