#include "platform/systrap/cpuid_table.h"

#include <cpuid.h>

#include <algorithm>
#include <iterator>

#include "platform/fiber/clock.h"

namespace moat::systrap_platform {
namespace {

constexpr uint32_t kExtended = 0x80000000;
// Leaves whose subleaves are of interest, and those up to which they are.
struct Range {
  uint32_t leaf, last_subleaf;
};
constexpr Range kWithSubleaves[] = {{0x4, 7},  {0x7, 2},  {0xd, 18},       {0xf, 1},       {0x10, 3},
                                    {0x14, 1}, {0x17, 3}, {0x18, 8},       {0x1d, 1},      {0x1e, 1},
                                    {0x20, 1}, {0x24, 1}, {0x8000001d, 4}, {0x80000020, 3}};
// Initial APIC id; monitor line sizes and what CPUs of several kinds differ in; x2APIC topology.
constexpr uint32_t kEachCpusOwn[] = {0x1, 0x2, 0xb, 0x1a, 0x1b, 0x1c, 0x1f, 0x23, 0x8000001e, 0x80000026};
// Bit of leaf 7's edx: CPUs of several kinds.
constexpr uint32_t kHybrid = 1u << 15;
constexpr uint32_t kMostLeaves = 0x40;
constexpr Nanos kSlow = 1'000;

bool IsHybrid() {
  static const bool hybrid = AskCpu(0, 0).eax >= 7 && (AskCpu(7, 0).edx & kHybrid) != 0;
  return hybrid;
}

class Maker {
 public:
  explicit Maker(CpuidTable& table) : table_(table) {}
  void AddAll(uint32_t base) {
    const uint32_t last = AskCpu(base, 0).eax;
    if (last < base) return;
    for (uint32_t leaf = base; leaf <= std::min(last, base + kMostLeaves); ++leaf) {
      if (!IsCpuidLeafShared(leaf)) continue;
      const Range* range = std::find_if(std::begin(kWithSubleaves), std::end(kWithSubleaves),
                                        [leaf](const Range& r) { return r.leaf == leaf; });
      if (range == std::end(kWithSubleaves)) {
        Add(leaf, 0, true);
        continue;
      }
      for (uint32_t subleaf = 0; subleaf <= range->last_subleaf; ++subleaf) Add(leaf, subleaf, false);
    }
  }
  void Finish() { table_.end = CPUID_ENTRIES + count_ * CPUID_ENTRY; }

 private:
  void Add(uint32_t leaf, uint32_t subleaf, bool any) {
    if (count_ == std::size(table_.entries)) return;  // the rest is the CPU's
    const CpuidAnswer a = AskCpu(leaf, subleaf);
    table_.entries[count_++] = {leaf, subleaf, any ? 1u : 0u, a.eax, a.ebx, a.ecx, a.edx, 0};
  }
  CpuidTable& table_;
  uint32_t count_ = 0;
};

}  // namespace

CpuidAnswer AskCpu(uint32_t leaf, uint32_t subleaf) {
  CpuidAnswer a;
  __cpuid_count(leaf, subleaf, a.eax, a.ebx, a.ecx, a.edx);
  return a;
}

bool IsCpuidSlow() {
  static const bool slow = [] {
    const Nanos start = MonotonicNow();
    (void)AskCpu(0, 0);
    return MonotonicNow() - start >= kSlow;
  }();
  return slow;
}

bool IsCpuidLeafShared(uint32_t leaf) {
  const bool plain = leaf < kMostLeaves || (leaf >= kExtended && leaf - kExtended < kMostLeaves);
  return plain && !IsHybrid() &&
         std::find(std::begin(kEachCpusOwn), std::end(kEachCpusOwn), leaf) == std::end(kEachCpusOwn);
}

const CpuidTable& SharedCpuidTable() {
  static const CpuidTable* table = [] {
    auto* made = new CpuidTable{};
    Maker maker(*made);
    // Those that programs ask for most, and so look through first.
    maker.AddAll(kExtended);
    maker.AddAll(0);
    maker.Finish();
    return made;
  }();
  return *table;
}

}  // namespace moat::systrap_platform
