#include "sentry/kernel/random.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace moat {
namespace {

TEST(RandomTest, RequestsDiffer) {
  SeedRandom();
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(RandomU64());
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(RandomTest, FillsEveryByteOfOddLengths) {
  SeedRandom();
  std::array<uint8_t, 203> ored{};
  for (int i = 0; i < 64; ++i) {
    std::array<uint8_t, 203> b{};
    FillRandom(b.data(), b.size());
    for (size_t j = 0; j < b.size(); ++j) ored[j] |= b[j];
  }
  for (uint8_t v : ored) EXPECT_EQ(v, 0xff);
}

TEST(RandomTest, BitsAreBalanced) {
  SeedRandom();
  int ones = 0;
  for (int i = 0; i < 10'000; ++i) ones += __builtin_popcountll(RandomU64());
  EXPECT_NEAR(ones, 320'000, 2'000);
}

}  // namespace
}  // namespace moat
