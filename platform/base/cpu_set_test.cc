#include "platform/base/cpu_set.h"

#include <gtest/gtest.h>

namespace moat {
namespace {

TEST(CpuSet, CountsAndBounds) {
  CpuSet s;
  EXPECT_TRUE(s.empty());
  EXPECT_EQ(s.limit(), 0);
  EXPECT_EQ(s.lowest(), -1);
  s.Add(3);
  s.Add(70);
  EXPECT_EQ(s.count(), 2);
  EXPECT_EQ(s.limit(), 71);
  EXPECT_EQ(s.lowest(), 3);
  EXPECT_TRUE(s.Has(70));
  EXPECT_FALSE(s.Has(4));
  EXPECT_FALSE(s.Has(-1));
  EXPECT_FALSE(s.Has(1000));
}

TEST(CpuSet, IntersectionDropsZeroWords) {
  const CpuSet low({0xff, 0, 0});
  CpuSet high;
  high.Add(2);
  high.Add(128);
  EXPECT_EQ(low.words().size(), 1u);
  EXPECT_EQ((low & high).words(), std::vector<uint64_t>{4});
  EXPECT_TRUE((low & CpuSet({0, 1})).empty());
}

TEST(CpuSet, OfThisThreadIsWhatTheHostSays) {
  const CpuSet mine = CpuSet::OfThisThread();
  cpu_set_t host = mine.ToHost();
  EXPECT_EQ(CPU_COUNT(&host), mine.count());
  EXPECT_TRUE(mine.Has(sched_getcpu()));
}

}  // namespace
}  // namespace moat
