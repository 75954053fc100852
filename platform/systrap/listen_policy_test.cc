#include "platform/systrap/listen_policy.h"

#include <gtest/gtest.h>

namespace moat::systrap_platform {
namespace {

constexpr Nanos kShort = 8'000, kLong = 10'000'000;

int CallsUntilJoin(ListenPolicy& policy, bool frequent, bool open, int limit = 100'000) {
  for (int calls = 1; calls <= limit; ++calls) {
    if (policy.OnNotified(kShort, frequent, open)) return calls;
  }
  return limit;
}

TEST(ListenPolicy, JoinsWhenCallsAreFrequentOrTheDeskIsOpen) {
  ListenPolicy policy;
  EXPECT_EQ(CallsUntilJoin(policy, false, false, 1000), 1000);
  ListenPolicy frequent;
  EXPECT_EQ(CallsUntilJoin(frequent, true, false), 12);
  ListenPolicy open;
  EXPECT_EQ(CallsUntilJoin(open, false, true), 9);
  EXPECT_FALSE(open.OnNotified(kLong, false, true));
  EXPECT_TRUE(open.OnNotified(kShort, false, true));
}
TEST(ListenPolicy, WhoWaitsForOthersJoinsLater) {
  ListenPolicy policy;
  policy.OnPark();
  EXPECT_EQ(CallsUntilJoin(policy, true, true), 13);
}
TEST(ListenPolicy, ComesBackAtOnceAfterATimeThatPaid) {
  ListenPolicy policy;
  policy.Begin();
  for (int i = 0; i < 100; ++i) policy.OnMailbox();
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, false, true), 1);
  policy.Begin();
  for (int i = 0; i < 100; ++i) policy.OnMailbox();
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, false, false), 4);
}
TEST(ListenPolicy, PausesLongerEachTimeThatDidNotPay) {
  ListenPolicy policy;
  int before = 0;
  for (int i = 0; i < 4; ++i) {
    policy.Begin();
    policy.End(false);
    const int calls = CallsUntilJoin(policy, true, true);
    EXPECT_GE(calls, before);
    before = calls;
  }
  EXPECT_EQ(before, 257);
}
TEST(ListenPolicy, CreditComesWithCallsAndGoesWithAllElse) {
  ListenPolicy policy;
  policy.Begin();
  EXPECT_FALSE(policy.IsOverdrawn());
  policy.OnWakeUp();
  policy.OnWakeUp();
  EXPECT_TRUE(policy.IsOverdrawn());
  for (int i = 0; i < 20; ++i) policy.OnMailbox();
  EXPECT_FALSE(policy.IsOverdrawn());
  for (int i = 0; i < 7; ++i) policy.OnNotice();
  EXPECT_TRUE(policy.IsOverdrawn());
  // Many calls are no excuse: what it does now does not fit.
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, true, true), 65);
}

}  // namespace
}  // namespace moat::systrap_platform
