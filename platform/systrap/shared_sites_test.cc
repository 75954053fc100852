#include "platform/systrap/shared_sites.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>

#include "platform/systrap/call_sites.h"
#include "platform/systrap/cpuid_site.h"
#include "platform/systrap/cpuid_table.h"

namespace moat::systrap_platform {
namespace {

using Bytes = std::vector<uint8_t>;
using Kind = CodePatcher::Kind;
constexpr uint64_t kOffset = 0x3000, kBias = 0x7f0000000000;

// `mov $leaf, %eax; cpuid; ret` at offset 16 of a page, with room before and behind.
Bytes Asks(uint32_t leaf) {
  Bytes code(16, 0x50);
  code.push_back(0xb8);
  for (int i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(leaf >> (8 * i)));
  code.insert(code.end(), {0x0f, 0xa2, 0xc3});
  code.resize(64, 0x50);
  return code;
}
constexpr uint64_t kBehind = kOffset + 16 + 7;

class SharedSitesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!IsCpuidLeafShared(7)) GTEST_SKIP() << "CPUs of several kinds";
  }
};

TEST_F(SharedSitesTest, LeafAndInstructionBecomeOneJump) {
  SharedSites sites;
  const Bytes code = Asks(0x80000000);
  std::optional<CodePatch> patch = sites.Plan({kOffset, code}, kBehind, Kind::kCpuid, 0);
  ASSERT_TRUE(patch);
  ASSERT_EQ(patch->code.size(), 1u);
  EXPECT_EQ(patch->code[0].address, kOffset + 16);
  ASSERT_EQ(patch->code[0].bytes.size(), 7u);
  EXPECT_EQ(patch->code[0].bytes[5], 0xcc);  // a jump to the instruction itself meets a breakpoint
  // The tables hold the thunk, the leaf, and what `cpuid` answers.
  uint64_t thunk, leaf;
  memcpy(&thunk, patch->tables[0].bytes.data(), 8);
  memcpy(&leaf, patch->tables[0].bytes.data() + TABLE_NUMBER, 8);
  EXPECT_EQ(thunk, SYSTRAP_THUNKS + patch->site * THUNK_SIZE);
  EXPECT_EQ(leaf, 0x80000000u);
  EXPECT_EQ(patch->tables[1].address, static_cast<GuestAddr>(SYSTRAP_CPUID));
}

TEST_F(SharedSitesTest, NotWhereCpusAnswerDifferently) {
  SharedSites sites;
  for (uint32_t leaf : {0x1u, 0xbu, 0x1fu, 0x8000001eu, 0x40000000u}) {
    const Bytes code = Asks(leaf);
    EXPECT_FALSE(sites.Plan({kOffset, code}, kBehind, Kind::kCpuid, 0)) << leaf;
  }
}

TEST_F(SharedSitesTest, NumbersAreTakenUntilReleased) {
  SharedSites sites;
  const Bytes code = Asks(7);
  std::vector<uint32_t> taken;
  while (std::optional<CodePatch> patch = sites.Plan({kOffset, code}, kBehind, Kind::kCpuid, 0))
    taken.push_back(patch->site);
  EXPECT_EQ(taken.size(), static_cast<size_t>(SYSTRAP_CPUID_SITES));
  sites.Release(taken[5]);
  EXPECT_EQ(sites.Plan({kOffset, code}, kBehind, Kind::kCpuid, 0)->site, taken[5]);
  // Calls have numbers of their own.
  Bytes call = Asks(39);
  call[22] = 0x05;
  EXPECT_GE(sites.Plan({kOffset, call}, kBehind, Kind::kCall, 39)->site, static_cast<uint32_t>(SYSTRAP_CPUID_SITES));
  EXPECT_FALSE(sites.Plan({kOffset, code}, kBehind, Kind::kCall, 39));
}

TEST_F(SharedSitesTest, TheTableSaysWhatTheCpuSays) {
  const CpuidTable& table = SharedCpuidTable();
  const size_t count = (table.end - CPUID_ENTRIES) / CPUID_ENTRY;
  ASSERT_GT(count, 10u);
  ASSERT_LE(count, std::size(table.entries));
  for (size_t i = 0; i < count; ++i) {
    const CpuidTable::Entry& e = table.entries[i];
    EXPECT_TRUE(IsCpuidLeafShared(e.leaf));
    EXPECT_EQ(AskCpu(e.leaf, e.subleaf), (CpuidAnswer{e.eax, e.ebx, e.ecx, e.edx})) << e.leaf;
    if (e.any_subleaf != 0) EXPECT_EQ(AskCpu(e.leaf, 77), (CpuidAnswer{e.eax, e.ebx, e.ecx, e.edx})) << e.leaf;
  }
}

// A site placed in a space; threads that are interrupted at any place of its way.
class PlacedCpuidTest : public testing::Test {
 protected:
  PlacedCpuidTest() {
    if (!IsCpuidLeafShared(kLeaf)) return;
    const Bytes code = Asks(kLeaf);
    site_ = shared_.Plan({kOffset, code}, kBehind, Kind::kCpuid, 0)->site;
    sites_.Place(MakeRef<PatchSet>(std::vector<uint32_t>{site_}, std::vector<RefPtr<const RefCounted>>{}), kBias,
                 kBias + kOffset, kBias + kOffset + 4096);
  }
  void SetUp() override {
    if (!IsCpuidLeafShared(kLeaf)) GTEST_SKIP() << "CPUs of several kinds";
  }
  static constexpr uint32_t kLeaf = 7, kSubleaf = 0;
  static constexpr uint64_t kFlags = 0x2d7;   // carry, parity, adjust, zero, sign
  static constexpr uint64_t kSaved = 0xd700;  // the same in ax, without overflow

  // Registers as the trampoline has them at `rip`.
  user_regs_struct At(uint64_t rip) const {
    user_regs_struct r = {};
    r.rip = rip;
    r.eflags = kFlags;
    r.rcx = kSubleaf;
    r.rbx = site_ * 8;
    r.rdx = kLeaf;
    r.rax = kLeaf;
    if (rip >= CpuidFlagsAddress() && rip < CpuidFinalAddress()) {
      r.rax = kSaved;
      r.eflags = 0x202;
    }
    if (rip >= CpuidStoredAddress() && rip < CpuidSlowAddress()) r.rbx = 0x1234;
    return r;
  }
  void ExpectDone(user_regs_struct r) {
    Area area = {};
    area.cpuid_site = site_ * 8;
    const uint64_t rip = r.rip;
    ASSERT_TRUE(sites_.Rewind(r, area)) << std::hex << rip;
    const CpuidAnswer a = AskCpu(kLeaf, kSubleaf);
    EXPECT_EQ(r.rip, kBias + kBehind);
    EXPECT_EQ(r.rax, a.eax) << std::hex << rip;
    EXPECT_EQ(r.rbx, a.ebx);
    EXPECT_EQ(r.rcx, a.ecx);
    EXPECT_EQ(r.rdx, a.edx);
    EXPECT_EQ(r.eflags, kFlags) << std::hex << rip;
  }

  SharedSites shared_;
  CallSites sites_{shared_};
  uint32_t site_ = 0;
};

TEST_F(PlacedCpuidTest, WhoIsInterruptedFindsItDone) {
  for (uint64_t rip :
       {CpuidAddress(), CpuidFlagsAddress(), CpuidStoredAddress(), CpuidStoredAddress() + 7, CpuidRestoredAddress()})
    ExpectDone(At(rip));
  user_regs_struct slow = At(CpuidSlowAddress());
  slow.rax = kSaved;
  slow.eflags = 0x202;
  slow.rbx = site_ * 8;
  ExpectDone(slow);
  const uint64_t thunk = SYSTRAP_THUNKS + uint64_t{site_} * THUNK_SIZE;
  user_regs_struct entry = At(thunk);
  entry.rax = 99;  // the leaf is not loaded yet
  ExpectDone(entry);
  ExpectDone(At(thunk + THUNK_CPUID_UNNUMBERED));
  ExpectDone(At(thunk + THUNK_CPUID));
}

TEST_F(PlacedCpuidTest, WhoIsLoadingTheResultsGetsAllOfThem) {
  const CpuidTable& table = SharedCpuidTable();
  size_t index = 0;
  while (table.entries[index].leaf != kLeaf || table.entries[index].subleaf != kSubleaf) ++index;
  user_regs_struct r = At(CpuidFinalAddress());
  r.rbx = CPUID_ENTRIES + index * CPUID_ENTRY;
  ExpectDone(r);
  r.rip += 3;  // eax is loaded
  r.rax = table.entries[index].eax;
  ExpectDone(r);
  // All loaded.
  const CpuidAnswer a = AskCpu(kLeaf, kSubleaf);
  r.rip = CpuidLastAddress();
  r.rax = a.eax, r.rbx = a.ebx, r.rcx = a.ecx, r.rdx = a.edx;
  ExpectDone(r);
}

TEST_F(PlacedCpuidTest, ABreakpointWhereTheInstructionBegan) {
  user_regs_struct r = At(kBias + kBehind - 1);
  const Area area = {};
  ASSERT_TRUE(sites_.Redirect(r, area, SIGTRAP));
  EXPECT_EQ(r.rip, kBias + kBehind);
  EXPECT_EQ(r.rax, AskCpu(kLeaf, kSubleaf).eax);
  // Elsewhere it is the guest's own.
  r.rip = kBias + kBehind + 64;
  EXPECT_FALSE(sites_.Redirect(r, area, SIGTRAP));
}

TEST_F(PlacedCpuidTest, WhatForgedWordsName) {
  // Any site, any entry: no harm but to whoever forged them.
  for (uint64_t forged : {uint64_t{1} << 20, ~uint64_t{0}, uint64_t{8000}, uint64_t{8}}) {
    Area area = {};
    area.cpuid_site = forged;
    user_regs_struct r = At(CpuidStoredAddress() + 7);
    (void)sites_.Rewind(r, area);
    r = At(CpuidFinalAddress());
    r.rbx = forged;
    (void)sites_.Rewind(r, area);
    r = At(CpuidAddress());
    r.rbx = forged;
    (void)sites_.Rewind(r, area);
  }
}

TEST_F(PlacedCpuidTest, ForgottenPagesHaveNone) {
  sites_.Forget(kBias + kOffset + 100, kBias + kOffset + 101);
  user_regs_struct r = At(kBias + kBehind - 1);
  EXPECT_FALSE(sites_.Redirect(r, Area{}, SIGTRAP));
}

}  // namespace
}  // namespace moat::systrap_platform
