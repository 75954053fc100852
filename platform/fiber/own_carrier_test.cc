#include "platform/fiber/own_carrier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "platform/fiber/fiber.h"
#include "platform/fiber/futex.h"
#include "platform/fiber/scheduler.h"

namespace moat {
namespace {

// Runs the fibers that come, and writes down what its carrier is told.
class Bench final : public OwnCarrier::Loop {
 public:
  Bench() : carrier(std::move(*OwnCarrier::Start("bench", *this))) {}
  ~Bench() override {
    ending_ = true;
    Ring();
    carrier.Join();
  }
  // The calling fiber goes on on the bench.
  void Come() {
    fiber_ = CurrentFiber();
    SuspendFiber(
        *CurrentFiber(),
        [](void* bench) {
          static_cast<Bench*>(bench)->Ring();
          return true;
        },
        this);
  }
  bool LookForWork() override {
    while (bell_.exchange(0) == 0) HostFutexWait(bell_, 0);
    if (Fiber* f = fiber_.exchange(nullptr)) MakeReady(*f);
    return !ending_;
  }
  void OnLongSleep(bool begins) override { told += begins ? '(' : ')'; }

  std::string told;

 private:
  void Ring() {
    bell_ = 1;
    HostFutexWake(bell_);
  }
  std::atomic<Fiber*> fiber_{nullptr};
  std::atomic<uint32_t> bell_{0};
  std::atomic<bool> ending_{false};

 public:
  OwnCarrier carrier;  // the last: it looks at the others from its start
};

void RunPooled(absl::AnyInvocable<void()> fn) {
  std::atomic<uint32_t> done{0};
  ASSERT_TRUE(StartFiber(FiberKind::kPooled, "test", [&] {
                fn();
                done = 1;
                HostFutexWake(done);
              }).ok());
  while (done == 0) HostFutexWait(done, 0);
  while (PooledFiberCount() != 0) {
  }
}

TEST(OwnCarrier, IsToldWhenAFiberOfItsSleepsLong) {
  Bench bench;
  std::vector<bool> there;
  RunPooled([&] {
    there.push_back(bench.carrier.IsCurrent());
    { const LongHostSleep elsewhere; }
    bench.Come();
    there.push_back(bench.carrier.IsCurrent());
    BeforeHostSleep();
    bench.told += 's';
    {
      const LongHostSleep sleep;
      bench.told += 'z';
    }
    SuspendFiber(
        *CurrentFiber(),
        [](void* fiber) {
          MakeReadyInPool(*static_cast<Fiber*>(fiber));
          return true;
        },
        CurrentFiber());
    there.push_back(bench.carrier.IsCurrent());
    { const LongHostSleep elsewhere; }
  });
  { const LongHostSleep of_a_thread; }
  EXPECT_EQ(bench.told, "s(z)");
  EXPECT_EQ(there, (std::vector<bool>{false, true, false}));
}

TEST(OwnCarrier, ReadyFibersGoElsewhereBeforeItSleeps) {
  Bench bench;
  std::atomic<int> ran{0};
  std::atomic<bool> elsewhere{false};
  RunPooled([&] {
    bench.Come();
    ASSERT_TRUE(StartFiber(FiberKind::kPooled, "other", [&] {
                  elsewhere = !bench.carrier.IsCurrent();
                  ++ran;
                }).ok());
    EXPECT_TRUE(bench.carrier.HasReady());
    const LongHostSleep sleep;
    while (ran == 0) {  // as in a host call
    }
  });
  EXPECT_TRUE(elsewhere);
}

}  // namespace
}  // namespace moat
