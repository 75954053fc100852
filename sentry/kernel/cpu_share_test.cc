#include "sentry/kernel/cpu_share.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace moat {
namespace {

Nanos fake_now = 1000;

TEST(CpuShare, RunsSlowerWhenMoreTasksRunThanThereAreCpus) {
  CpuShare share(2, [] { return fake_now; });
  const Nanos start = share.Now();
  share.Enter();
  share.Enter();
  fake_now += 1000;
  EXPECT_EQ(share.Now() - start, 1000);
  share.Enter();
  share.Enter();
  fake_now += 1000;
  EXPECT_NEAR(share.Now() - start, 1500, 1);
  share.Leave();
  fake_now += 300;
  EXPECT_NEAR(share.Now() - start, 1700, 2);
  share.Leave();
  fake_now += 100;
  EXPECT_NEAR(share.Now() - start, 1800, 2);
}

TEST(CpuShare, NeverGoesBack) {
  CpuShare share(1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        share.Enter();
        share.Enter();
        share.Leave();
        share.Leave();
      }
    });
  }
  Nanos last = share.Now();
  for (int i = 0; i < 100'000; ++i) {
    const Nanos now = share.Now();
    EXPECT_GE(now, last);
    if (now < last) break;
    last = now;
  }
  stop = true;
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace moat
