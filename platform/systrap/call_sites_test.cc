#include "platform/systrap/call_sites.h"

#include <gtest/gtest.h>

#include <cstring>

namespace moat::systrap_platform {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr GuestAddr kCode = 0x401000;
constexpr uint8_t kNop = 0x90, kRet = 0xc3, kInt3 = 0xcc, kShortJump = 0xeb;

// A page of code in the making; what a plan writes can be put into it, as the sentry does.
class CallSitesTest : public testing::Test {
 protected:
  size_t Add(const Bytes& bytes) {
    const size_t at = code_.size();
    code_.insert(code_.end(), bytes.begin(), bytes.end());
    return at;
  }
  void Fill(size_t n, uint8_t byte) { code_.resize(code_.size() + n, byte); }
  // Instructions that pass control on and are no padding.
  void Work(size_t n) { Fill(n, 0x50); }
  // A function's end and so many bytes of padding, whose address it is.
  GuestAddr End(size_t padding) {
    Add({kRet});
    const GuestAddr at = kCode + code_.size();
    Fill(padding, kNop);
    return at;
  }
  // `xor %eax, %eax; syscall`; the address behind it.
  GuestAddr Zeroed() { return kCode + Add({0x31, 0xc0, 0x0f, 0x05}) + 4; }
  GuestAddr Numbered(uint8_t number) { return kCode + Add({0xb8, number, 0, 0, 0, 0x0f, 0x05}) + 7; }

  std::optional<CodePatch> Plan(GuestAddr behind, uint32_t number, bool alone = false) {
    code_.resize(4096, kInt3);
    std::optional<CodePatch> patch = sites_.Plan({kCode, code_}, behind, number, alone);
    for (size_t i = 0; patch && i < patch->code.size(); ++i) {
      const CodePatch::Piece& piece = patch->code[i];
      memcpy(&code_[piece.address - kCode], piece.bytes.data(), piece.bytes.size());
    }
    return patch;
  }
  uint8_t At(GuestAddr address) const { return code_[address - kCode]; }
  // Where a short jump leads to.
  GuestAddr Target(GuestAddr jump) const {
    EXPECT_EQ(At(jump), kShortJump);
    return jump + 2 + At(jump + 1);
  }
  bool IsFarJump(GuestAddr at) const { return At(at) == 0xff && At(at + 1) == 0x24 && At(at + 2) == 0x25; }

  // Where a thread that is interrupted at `ip` is to the guest; 0: nowhere of ours.
  GuestAddr Rewound(GuestAddr ip) const {
    user_regs_struct regs = {};
    regs.rip = ip;
    Area area = {};
    return sites_.Rewind(regs, area) ? regs.rip : 0;
  }

  Bytes code_;
  SharedSites shared_;
  CallSites sites_{shared_};
};

TEST_F(CallSitesTest, JumpsToPaddingBehindTheFunction) {
  Work(16);
  const GuestAddr behind = Zeroed();
  Work(20);
  const GuestAddr padding = End(9);
  Work(40);
  ASSERT_TRUE(Plan(behind, 0));
  EXPECT_EQ(Target(behind - 2), padding);
  EXPECT_TRUE(IsFarJump(padding));
  // What is left of the padding is whole instructions still.
  EXPECT_EQ(At(padding + 7), kInt3);
  EXPECT_EQ(At(padding + 8), kInt3);
  EXPECT_EQ(At(padding + 9), 0x50);
}

TEST_F(CallSitesTest, LongNopsAreReplacedWhole) {
  Work(16);
  const GuestAddr behind = Zeroed();
  Add({kRet});
  const GuestAddr padding = kCode + Add({0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0});
  Work(40);
  ASSERT_TRUE(Plan(behind, 0));
  for (size_t i = 7; i < 10; ++i) EXPECT_EQ(At(padding + i), kInt3) << i;
}

TEST_F(CallSitesTest, HopsToPaddingOutOfReach) {
  Work(16);
  const GuestAddr behind = Zeroed();
  Work(90);
  Add({kRet});
  const GuestAddr hop = kCode + Add({0x0f, 0x1f, 0x40, 0});  // a nop of four bytes
  Work(100);
  const GuestAddr padding = End(7);
  Work(20);
  ASSERT_TRUE(Plan(behind, 0));
  EXPECT_EQ(Target(behind - 2), hop);
  EXPECT_EQ(Target(hop), padding);
  EXPECT_EQ(At(hop + 2), kInt3);
  EXPECT_EQ(At(hop + 3), kInt3);
  EXPECT_TRUE(IsFarJump(padding));
  // A thread that is interrupted on the way is at its call still.
  for (GuestAddr at : {hop, padding}) EXPECT_EQ(Rewound(at), behind - 2);
  sites_.Forget(behind - 2, behind);
  EXPECT_EQ(Rewound(hop), 0u);
}

TEST_F(CallSitesTest, TooFarEvenWithAHop) {
  Work(16);
  const GuestAddr behind = Zeroed();
  Work(90);
  (void)End(2);
  Work(150);
  (void)End(20);
  EXPECT_FALSE(Plan(behind, 0));
}

TEST_F(CallSitesTest, SitesDoNotShareTheirPadding) {
  Work(16);
  const GuestAddr first = Zeroed(), second = Zeroed();
  (void)End(7);
  Work(30);
  const GuestAddr later = End(7);
  Work(30);
  ASSERT_TRUE(Plan(first, 0));
  ASSERT_TRUE(Plan(second, 0));
  EXPECT_EQ(Target(second - 2), later);
  EXPECT_FALSE(Plan(first, 0));
}

TEST_F(CallSitesTest, ANumberedSiteLeavesScarcePadding) {
  Work(16);
  const GuestAddr behind = Numbered(1);
  const GuestAddr padding = End(7);
  Work(200);
  ASSERT_TRUE(Plan(behind, 1, /*alone=*/true));
  EXPECT_TRUE(IsFarJump(behind - 7));
  EXPECT_EQ(At(padding), kNop);
}

TEST_F(CallSitesTest, ANumberedSiteMayBeRewrittenBySomebodyAloneOnly) {
  Work(16);
  const GuestAddr behind = Numbered(1);
  Work(600);
  EXPECT_FALSE(Plan(behind, 1, /*alone=*/false));
  EXPECT_FALSE(Plan(behind, 2, /*alone=*/true));
  EXPECT_TRUE(Plan(behind, 1, /*alone=*/true));
}

TEST_F(CallSitesTest, TwoBytesOfDifferentEightsNeedSomebodyAlone) {
  Work(21);
  const GuestAddr behind = Zeroed();
  ASSERT_EQ((behind - 2) % 8, 7u);
  (void)End(20);
  EXPECT_FALSE(Plan(behind, 0, /*alone=*/false));
  EXPECT_TRUE(Plan(behind, 0, /*alone=*/true));
}

TEST_F(CallSitesTest, NothingBeyondThePage) {
  Work(4000);
  const GuestAddr behind = Zeroed();
  Work(91);
  Add({kRet});
  ASSERT_EQ(code_.size(), 4096u);
  Bytes next(64, kNop);
  code_.insert(code_.end(), next.begin(), next.end());
  EXPECT_FALSE(sites_.Plan({kCode, code_}, behind, 0, true));
}

}  // namespace
}  // namespace moat::systrap_platform
