#include "platform/fiber/fiber.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "platform/fiber/host_poller.h"
#include "platform/fiber/load.h"
#include "platform/fiber/thread.h"
#include "platform/fiber/timer.h"

namespace moat {
namespace {

void WaitUntil(const auto& condition) {
  Deadline limit = DeadlineAfter(10 * kNanosPerSec);
  while (!condition()) {
    ASSERT_LT(MonotonicNow(), limit);
    sched_yield();
  }
}

TEST(HostThread, RunsNamedWithSignalsBlocked) {
  char name[16] = {};
  bool term_blocked = false, segv_blocked = true;
  auto t = HostThread::Start("a-long-thread-name", [&] {
    pthread_getname_np(pthread_self(), name, sizeof name);
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, nullptr, &set);
    term_blocked = sigismember(&set, SIGTERM);
    segv_blocked = sigismember(&set, SIGSEGV);
  });
  ASSERT_TRUE(t.ok());
  t->Join();
  EXPECT_STREQ(name, "a-long-thread-n");
  EXPECT_TRUE(term_blocked);
  EXPECT_FALSE(segv_blocked);
}

TEST(HostThread, DetachedThreadsEndAndTheirStacksAreUsedAgain) {
  std::atomic<int> ran{0};
  for (int i = 0; i < 500; ++i) {
    auto t = HostThread::Start("t", [&] { ran.fetch_add(1); });
    ASSERT_TRUE(t.ok());
    t->Detach();
  }
  WaitUntil([&] { return ran.load() == 500; });
}

TEST(Load, CountsFibersThatAreNotSuspended) {
  WaitUntil([] { return RunningFibers() == 0; });
  Parker parker;
  std::atomic<bool> spin{true}, parked{false};
  ASSERT_TRUE(StartFiber(FiberKind::kPooled, "parks", [&] {
                parker.Park();
                parked = true;
              }).ok());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(StartFiber(FiberKind::kPooled, "spins", [&] {
                  while (spin) {
                  }
                }).ok());
  }
  WaitUntil([] { return RunningFibers() == 2; });
  EXPECT_FALSE(parked);
  parker.Unpark();
  spin = false;
  WaitUntil([] { return PooledFiberCount() == 0; });  // none uses the variables above any more
  WaitUntil([] { return RunningFibers() == 0; });
  EXPECT_TRUE(parked);
}

TEST(Parker, PermitBeforeParkIsNotLost) {
  Parker p;
  p.Unpark();
  EXPECT_TRUE(p.Park());
}

TEST(Parker, DeadlineEndsTheSleep) {
  Parker p;
  Deadline d = DeadlineAfter(2'000'000);
  while (p.Park(d)) {
  }
  EXPECT_GE(MonotonicNow(), d);
}

TEST(Parker, PingPongBetweenThreads) {
  Parker a, b;
  std::atomic<int> turn{0};
  constexpr int kRounds = 2000;
  auto t = HostThread::Start("pong", [&] {
    for (int i = 0; i < kRounds; ++i) {
      while (turn.load() != 1) b.Park();
      turn = 0;
      a.Unpark();
    }
  });
  ASSERT_TRUE(t.ok());
  for (int i = 0; i < kRounds; ++i) {
    turn = 1;
    b.Unpark();
    while (turn.load() != 0) a.Park();
  }
  t->Join();
}

class CountingObserver : public CarrierObserver {
 public:
  void OnPark() override { ++parks; }
  void OnUnpark() override { ++unparks; }
  int parks = 0, unparks = 0;
};

TEST(Parker, ObserverSeesSleepsOnly) {
  CountingObserver o;
  SetCarrierObserver(&o);
  Parker p;
  p.Unpark();
  p.Park();
  EXPECT_EQ(o.parks, 0);
  p.Park(DeadlineAfter(1'000'000));
  EXPECT_EQ(o.parks, 1);
  EXPECT_EQ(o.unparks, 1);
  SetCarrierObserver(nullptr);
}

TEST(Fiber, PinnedRunsOnAThreadOfItsOwn) {
  std::atomic<bool> ran{false};
  std::atomic<pthread_t> where{};
  ASSERT_TRUE(StartFiber(FiberKind::kPinned, "task", [&] {
                where = pthread_self();
                ran = true;
              }).ok());
  WaitUntil([&] { return ran.load(); });
  EXPECT_NE(where.load(), pthread_self());
}

TEST(Fiber, TenThousandSleepersNeedNoThreads) {
#ifdef __SANITIZE_THREAD__
  constexpr int kFibers = 1000;  // each costs ThreadSanitizer a megabyte and several mappings
#else
  constexpr int kFibers = 10000;
#endif
  std::vector<Parker> parkers(kFibers);
  std::atomic<int> asleep{0}, woken{0};
  for (int i = 0; i < kFibers; ++i) {
    ASSERT_TRUE(StartFiber(FiberKind::kPooled, "f", [&, i] {
                  asleep.fetch_add(1);
                  while (!parkers[i].Park()) {
                  }
                  woken.fetch_add(1);
                }).ok());
  }
  WaitUntil([&] { return asleep.load() == kFibers; });
  for (Parker& p : parkers) p.Unpark();
  WaitUntil([&] { return woken.load() == kFibers && PooledFiberCount() == 0; });
}

TEST(Fiber, PooledParkHonoursDeadline) {
  std::atomic<int> done{0};
  ASSERT_TRUE(StartFiber(FiberKind::kPooled, "f", [&] {
                Parker p;
                Deadline d = DeadlineAfter(3'000'000);
                while (p.Park(d)) {
                }
                EXPECT_GE(MonotonicNow(), d);
                done = 1;
              }).ok());
  WaitUntil([&] { return done.load() == 1; });
}

TEST(Fiber, PooledPingPong) {
  Parker a, b;
  std::atomic<int> turn{0}, done{0};
  constexpr int kRounds = 20000;
  for (int me = 0; me < 2; ++me) {
    ASSERT_TRUE(StartFiber(FiberKind::kPooled, "f", [&, me] {
                  Parker &mine = me ? b : a, &other = me ? a : b;
                  for (int i = 0; i < kRounds; ++i) {
                    while (turn.load() != me) mine.Park();
                    turn = 1 - me;
                    other.Unpark();
                  }
                  done.fetch_add(1);
                }).ok());
  }
  WaitUntil([&] { return done.load() == 2 && PooledFiberCount() == 0; });
}

TEST(Fiber, RunElsewhereNeedsACarrierAndAFreeCpu) {
  absl::AnyInvocable<void()> unused = [] {};
  EXPECT_FALSE(RunElsewhere(unused));  // no carrier's thread
  const int cpus = HostThread::AllCpus().count();
  std::atomic<int> ran{0};
  std::atomic<bool> spin{true};
  for (int i = 0; i < cpus; ++i) {
    ASSERT_TRUE(StartFiber(FiberKind::kPooled, "spins", [&] {
                  while (spin) {
                  }
                  // The last one to end leaves CPUs free.
                  absl::AnyInvocable<void()> fn = [&] { ++ran; };
                  if (RunElsewhere(fn)) return;
                  fn();  // still there
                }).ok());
  }
  WaitUntil([&] { return RunningFibers() == cpus; });
  spin = false;
  WaitUntil([&] { return ran == cpus; });
  WaitUntil([] { return PooledFiberCount() == 0; });
}

TEST(Timer, FiresInOrderNotEarly) {
  std::vector<int> order;
  std::atomic<int> fired{0};
  // All are armed by then, on a busy machine too.
  Deadline base = DeadlineAfter(300'000'000);
  std::vector<std::unique_ptr<FunctionTimer>> timers;
  for (int i = 0; i < 50; ++i) {
    timers.push_back(std::make_unique<FunctionTimer>([&, i] {
      EXPECT_GE(MonotonicNow(), base + i * 10'000);
      order.push_back(i);
      fired.fetch_add(1);
    }));
  }
  for (int i = 49; i >= 0; --i) timers[i]->Arm(base + i * 10'000);
  WaitUntil([&] { return fired.load() == 50; });
  for (auto& t : timers) t->Cancel();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
}

TEST(Timer, DisarmRearmAndDeadline) {
  std::atomic<int> fired{0};
  FunctionTimer t([&] { fired.fetch_add(1); });
  EXPECT_FALSE(t.Disarm());
  t.Arm(DeadlineAfter(60 * kNanosPerSec));
  EXPECT_NE(t.deadline(), kNoDeadline);
  EXPECT_TRUE(t.Disarm());
  EXPECT_EQ(t.deadline(), kNoDeadline);
  t.Arm(DeadlineAfter(60 * kNanosPerSec));
  t.Arm(DeadlineAfter(500'000));
  WaitUntil([&] { return fired.load() == 1; });
  EXPECT_FALSE(t.Cancel());
}

TEST(Timer, CancelWaitsForTheCallback) {
  for (int i = 0; i < 200; ++i) {
    std::atomic<int> running{0};
    FunctionTimer t([&] {
      running = 1;
      for (int j = 0; j < 100; ++j) sched_yield();
      running = 0;
    });
    t.Arm(MonotonicNow() + i * 500);
    sched_yield();
    t.Cancel();
    EXPECT_EQ(running.load(), 0);
  }
}

TEST(Timer, CallbackMayRearmItself) {
  std::atomic<int> fired{0};
  FunctionTimer* self = nullptr;
  FunctionTimer t([&] {
    if (fired.fetch_add(1) < 4) self->Arm(DeadlineAfter(100'000));
  });
  self = &t;
  t.Arm(MonotonicNow());
  WaitUntil([&] { return fired.load() == 5; });
}

TEST(HostPoller, NotifiesAndStopsAfterRemove) {
  auto poller = HostPoller::Create();
  ASSERT_TRUE(poller.ok());
  ScopedFd fd(eventfd(0, EFD_NONBLOCK));
  WaitQueue queue;
  Parker parker;
  ParkerWaiter waiter(EPOLLIN, parker);
  queue.Add(waiter);
  ASSERT_TRUE((*poller)->Add(fd.get(), queue).ok());
  EXPECT_EQ((*poller)->Add(fd.get(), queue).error(), kEEXIST);
  EXPECT_EQ(HostPoller::PollNow(fd.get(), EPOLLIN | EPOLLOUT), EventMask{EPOLLOUT});
  uint64_t one = 1;
  ASSERT_EQ(write(fd.get(), &one, sizeof one), 8);
  EXPECT_TRUE(parker.Park(DeadlineAfter(5 * kNanosPerSec)));
  EXPECT_EQ(HostPoller::PollNow(fd.get(), EPOLLIN), EventMask{EPOLLIN});
  (*poller)->Remove(fd.get());
  ASSERT_EQ(write(fd.get(), &one, sizeof one), 8);
  EXPECT_FALSE(parker.Park(DeadlineAfter(20'000'000)));
  queue.Remove(waiter);
}

TEST(HostPoller, RegularFilesAreRefused) {
  auto poller = HostPoller::Create();
  ASSERT_TRUE(poller.ok());
  char name[] = "/tmp/moat-poller-XXXXXX";
  ScopedFd fd(mkstemp(name));
  unlink(name);
  WaitQueue queue;
  EXPECT_EQ((*poller)->Add(fd.get(), queue).error(), kEPERM);
}

}  // namespace
}  // namespace moat
