#include "platform/base/own_image.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace moat {
namespace {

long ResidentFileKilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stol(line.substr(8));
  return -1;
}

TEST(OwnImage, CodeComesBackWhenItIsNeeded) {
  // Touches much of the program.
  testing::UnitTest::GetInstance()->total_test_count();
  const long before = ResidentFileKilobytes();
  DropOwnCode();
  const long after = ResidentFileKilobytes();
  EXPECT_GT(before, 0);
  EXPECT_LT(after, before);
  EXPECT_EQ(std::string("still ") + std::to_string(42), "still 42");
}

}  // namespace
}  // namespace moat
