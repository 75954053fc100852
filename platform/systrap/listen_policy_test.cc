#include "platform/systrap/listen_policy.h"

#include <gtest/gtest.h>

namespace moat::systrap_platform {
namespace {

constexpr Nanos kShort = 8'000, kLong = 10'000'000;

int CallsUntilJoin(ListenPolicy& policy, bool frequent, int members, int limit = 100'000) {
  for (int calls = 1; calls <= limit; ++calls) {
    if (policy.OnNotified(kShort, frequent, members)) return calls;
  }
  return limit;
}

TEST(ListenPolicy, JoinsWhenCallsAreFrequentOrTheDeskIsOpen) {
  ListenPolicy policy;
  EXPECT_EQ(CallsUntilJoin(policy, false, 0, 1000), 1000);
  ListenPolicy frequent;
  EXPECT_EQ(CallsUntilJoin(frequent, true, 0), 12);
  ListenPolicy open;
  EXPECT_EQ(CallsUntilJoin(open, false, 1), 2);
  EXPECT_FALSE(open.OnNotified(kLong, false, 1));
  EXPECT_TRUE(open.OnNotified(kShort, false, 1));
}
TEST(ListenPolicy, WhoWaitsForOthersJoinsLater) {
  ListenPolicy policy;
  policy.OnPark();
  EXPECT_EQ(CallsUntilJoin(policy, true, 0), 16);
  policy.OnPark();
  EXPECT_EQ(CallsUntilJoin(policy, true, 1), 2);
}
TEST(ListenPolicy, ComesBackAtOnceAfterATimeThatPaid) {
  ListenPolicy policy;
  policy.Begin();
  for (int i = 0; i < 100; ++i) policy.OnMailbox();
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, false, 1), 1);
  policy.Begin();
  for (int i = 0; i < 100; ++i) policy.OnMailbox();
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, false, 0), 4);
}
TEST(ListenPolicy, PausesLongerEachTimeThatDidNotPay) {
  ListenPolicy policy;
  int before = 0;
  for (int i = 0; i < 4; ++i) {
    policy.Begin();
    policy.End(false);
    const int calls = CallsUntilJoin(policy, true, 1);
    EXPECT_GE(calls, before);
    before = calls;
  }
  EXPECT_EQ(before, 257);
}
TEST(ListenPolicy, CreditComesWithCallsAndGoesWithAllElse) {
  ListenPolicy policy;
  policy.Begin();
  EXPECT_FALSE(policy.IsOverdrawn());
  policy.OnWakeUp(true);
  policy.OnWakeUp(true);
  EXPECT_FALSE(policy.IsOverdrawn());
  policy.OnWakeUp(false);
  policy.OnWakeUp(false);
  EXPECT_TRUE(policy.IsOverdrawn());
  for (int i = 0; i < 20; ++i) policy.OnMailbox();
  EXPECT_FALSE(policy.IsOverdrawn());
  for (int i = 0; i < 7; ++i) policy.OnNotice();
  EXPECT_TRUE(policy.IsOverdrawn());
  // Many calls are no excuse: what it does now does not fit.
  policy.End(false);
  EXPECT_EQ(CallsUntilJoin(policy, true, 1), 65);
}

TEST(ListenPolicy, StaysOutOfACrowdOnlyWhereItsOwnCallsDoNotFit) {
  ListenPolicy unlucky;
  unlucky.Begin();
  for (int i = 0; i < 3; ++i) unlucky.OnLongCall();
  EXPECT_TRUE(unlucky.IsOverdrawn());
  unlucky.End(false);
  EXPECT_EQ(CallsUntilJoin(unlucky, true, 2), 1);
  ListenPolicy preempted;
  preempted.Begin();
  preempted.End(true);
  EXPECT_EQ(CallsUntilJoin(preempted, true, 2), 1);
  ListenPolicy unfit;
  int calls = 0;
  for (int i = 0; i < 20; ++i) {
    unfit.Begin();
    while (!unfit.IsOverdrawn()) unfit.OnNotice();
    unfit.End(false);
    calls = CallsUntilJoin(unfit, true, 2);
  }
  EXPECT_EQ(calls, (1 << 15) / 64 + 1);
}

}  // namespace
}  // namespace moat::systrap_platform
