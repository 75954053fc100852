// CpuSet: a set of host CPUs by number. Guests see the host's numbers, so that what the CPU itself tells them (vDSO,
// rseq) and what the sentry tells them agree. Source: sched_setaffinity(2).
#ifndef MOAT_PLATFORM_BASE_CPU_SET_H_
#define MOAT_PLATFORM_BASE_CPU_SET_H_

#include <sched.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace moat {

class CpuSet {
 public:
  CpuSet() = default;
  explicit CpuSet(std::vector<uint64_t> words) : words_(std::move(words)) {
    while (!words_.empty() && words_.back() == 0) words_.pop_back();
  }
  // The CPUs 0 .. count-1.
  static CpuSet First(int count) {
    CpuSet s;
    for (int cpu = 0; cpu < count; ++cpu) s.Add(cpu);
    return s;
  }
  // Those that the calling thread may use; CPU 0 if the host does not tell.
  static CpuSet OfThisThread() {
    cpu_set_t host;
    CpuSet s;
    if (sched_getaffinity(0, sizeof host, &host) == 0) {
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(cpu, &host)) s.Add(cpu);
      }
    }
    return s.empty() ? First(1) : s;
  }

  // Bits of CPU 64*i and up in the i-th word; no zero word at the end.
  const std::vector<uint64_t>& words() const { return words_; }
  bool empty() const { return words_.empty(); }
  bool Has(int cpu) const {
    const size_t word = static_cast<size_t>(cpu) / 64;
    return cpu >= 0 && word < words_.size() && ((words_[word] >> (cpu % 64)) & 1) != 0;
  }
  void Add(int cpu) {
    const size_t word = static_cast<size_t>(cpu) / 64;
    if (word >= words_.size()) words_.resize(word + 1);
    words_[word] |= uint64_t{1} << (cpu % 64);
  }
  void Remove(int cpu) {
    if (!Has(cpu)) return;
    words_[static_cast<size_t>(cpu) / 64] &= ~(uint64_t{1} << (cpu % 64));
    while (!words_.empty() && words_.back() == 0) words_.pop_back();
  }
  int count() const {
    int n = 0;
    for (uint64_t w : words_) n += std::popcount(w);
    return n;
  }
  // One more than the highest CPU; 0 when empty.
  int limit() const { return empty() ? 0 : static_cast<int>(words_.size()) * 64 - std::countl_zero(words_.back()); }
  // The lowest CPU; -1 when empty.
  int lowest() const {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] != 0) return static_cast<int>(i) * 64 + std::countr_zero(words_[i]);
    }
    return -1;
  }
  CpuSet operator&(const CpuSet& o) const {
    std::vector<uint64_t> both(std::min(words_.size(), o.words_.size()));
    for (size_t i = 0; i < both.size(); ++i) both[i] = words_[i] & o.words_[i];
    return CpuSet(std::move(both));
  }
  bool operator==(const CpuSet&) const = default;
  // The part that fits, for the host's calls.
  cpu_set_t ToHost() const {
    cpu_set_t host;
    CPU_ZERO(&host);
    for (int cpu = 0; cpu < limit() && cpu < CPU_SETSIZE; ++cpu) {
      if (Has(cpu)) CPU_SET(cpu, &host);
    }
    return host;
  }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_CPU_SET_H_
