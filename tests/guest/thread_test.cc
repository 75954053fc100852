// Threads as the kernel sees them: ids, thread-local storage, signals to threads, shared resources.
#include <asm/prctl.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

TEST(Thread, SamePidOtherTid) {
  pid_t pid = 0, tid = 0;
  std::thread([&] {
    pid = getpid();
    tid = gettid();
  }).join();
  EXPECT_EQ(pid, getpid());
  EXPECT_NE(tid, gettid());
}
thread_local int local_value = 5;
TEST(Thread, ThreadLocalStorage) {
  local_value = 6;
  int seen = 0;
  std::thread([&] {
    seen = local_value;
    local_value = 7;
  }).join();
  EXPECT_EQ(seen, 5);
  EXPECT_EQ(local_value, 6);
}
TEST(Thread, HundredAtOnce) {
  std::atomic<int> arrived = 0;
  std::atomic<bool> go = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 100; ++i) {
    threads.emplace_back([&] {
      ++arrived;
      while (!go) usleep(500);
    });
  }
  EXPECT_TRUE(Eventually([&] { return arrived == 100; }));
  EXPECT_EQ(List("/proc/self/task").size(), 101u);
  go = true;
  for (auto& t : threads) t.join();
  EXPECT_TRUE(Eventually([] { return List("/proc/self/task").size() == 1; }));
}
TEST(Thread, MutexProtectsACounter) {
  std::mutex mutex;
  int counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 2000; ++n) {
        const std::lock_guard lock(mutex);
        ++counter;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(counter, 16'000);
}
TEST(Thread, ConditionVariablePingPong) {
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  std::thread other([&] {
    for (int i = 0; i < 500; ++i) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return turn == 1; });
      turn = 0;
      changed.notify_one();
    }
  });
  for (int i = 0; i < 500; ++i) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return turn == 0; });
    turn = 1;
    changed.notify_one();
  }
  other.join();
  EXPECT_EQ(turn, 0);
}
TEST(Thread, TgkillReachesOneThread) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  static std::atomic<pid_t> handled;
  handled = 0;
  const ScopedAction second(SIGUSR2, [](int) { handled = gettid(); });
  std::atomic<pid_t> tid = 0;
  std::atomic<bool> stop = false;
  std::thread t([&] {
    tid = gettid();
    while (!stop) usleep(1000);
  });
  ASSERT_TRUE(Eventually([&] { return tid != 0; }));
  ASSERT_OK(tgkill(getpid(), tid, SIGUSR2));
  EXPECT_TRUE(Eventually([&] { return handled == tid; }));
  stop = true;
  t.join();
  EXPECT_FAIL(tgkill(getpid(), tid, 0), ESRCH);
  EXPECT_FAIL(tgkill(getpid(), -1, 0), EINVAL);
  EXPECT_FAIL(tgkill(1, gettid(), 0), ESRCH);
}
TEST(Thread, TkillOldCall) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  ASSERT_OK(syscall(SYS_tkill, gettid(), SIGUSR1));
  EXPECT_EQ(SignalLog::count, 1);
  EXPECT_EQ(SignalLog::info[0].si_code, SI_TKILL);
}
TEST(Thread, ProcessSignalPicksAThreadThatTakesIt) {
  static std::atomic<pid_t> handled;
  handled = 0;
  const ScopedAction action(SIGUSR1, [](int) { handled = gettid(); });
  std::atomic<pid_t> tid = 0;
  std::atomic<bool> stop = false;
  std::thread t([&] {
    tid = gettid();
    while (!stop) usleep(1000);
  });
  ASSERT_TRUE(Eventually([&] { return tid != 0; }));
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(kill(getpid(), SIGUSR1));
  EXPECT_TRUE(Eventually([&] { return handled == tid; }));
  stop = true;
  t.join();
}
TEST(Thread, MaskIsPerThread) {
  const ScopedBlock block({SIGUSR1});
  std::thread([] {
    sigset_t mask = SignalSet({SIGUSR1});
    EXPECT_EQ(pthread_sigmask(SIG_UNBLOCK, &mask, nullptr), 0);
  }).join();
  sigset_t mask;
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, nullptr, &mask), 0);
  EXPECT_TRUE(sigismember(&mask, SIGUSR1));
}
TEST(Thread, NamesAreSeparate) {
  ASSERT_EQ(pthread_setname_np(pthread_self(), "main-name"), 0);
  std::thread([] {
    EXPECT_EQ(pthread_setname_np(pthread_self(), "other-name"), 0);
    EXPECT_EQ(ReadFile("/proc/self/task/" + std::to_string(gettid()) + "/comm"), "other-name\n");
  }).join();
  EXPECT_EQ(ReadFile("/proc/self/comm"), "main-name\n");
}
TEST(Thread, SetuidChangesAllThreads) {  // the C library signals each thread to do it
  EXPECT_TRUE(PassesInChild([] {
    std::atomic<int> step = 0;
    std::thread t([&] {
      while (step == 0) usleep(500);
      EXPECT_EQ(geteuid(), 1000u);
    });
    ASSERT_OK(setresuid(1000, 1000, 1000));
    step = 1;
    t.join();
  }));
}
TEST(Thread, RawSetuidChangesOneThread) {
  std::thread([] {
    EXPECT_OK(syscall(SYS_setresuid, 1000, 1000, 1000));
    EXPECT_EQ(geteuid(), 1000u);
  }).join();
  EXPECT_EQ(geteuid(), 0u);
}
TEST(Thread, CancelAndJoin) {
  pthread_t t;
  ASSERT_EQ(pthread_create(
                &t, nullptr,
                [](void*) -> void* {
                  for (;;) pause();
                },
                nullptr),
            0);
  ASSERT_EQ(pthread_cancel(t), 0);
  void* result;
  ASSERT_EQ(pthread_join(t, &result), 0);
  EXPECT_EQ(result, PTHREAD_CANCELED);
}
TEST(Thread, BarrierRounds) {
  constexpr int kThreads = 6, kRounds = 100;
  pthread_barrier_t barrier;
  ASSERT_EQ(pthread_barrier_init(&barrier, nullptr, kThreads), 0);
  std::atomic<int> total = 0, serial = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int r = 0; r < kRounds; ++r) {
        ++total;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) ++serial;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(total, kThreads * kRounds);
  EXPECT_EQ(serial, kRounds);
}
TEST(Thread, ArchPrctlFsAndGs) {
  unsigned long fs = 0, gs = 0;
  ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
  EXPECT_NE(fs, 0u);
  std::thread([&] {
    unsigned long other = 0;
    EXPECT_OK(syscall(SYS_arch_prctl, ARCH_GET_FS, &other));
    EXPECT_NE(other, fs);
    int anchor = 0;
    EXPECT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, &anchor));
    EXPECT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    EXPECT_EQ(gs, reinterpret_cast<unsigned long>(&anchor));
    sched_yield();
    EXPECT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    EXPECT_EQ(gs, reinterpret_cast<unsigned long>(&anchor));
  }).join();
  EXPECT_FAIL(syscall(SYS_arch_prctl, 0x9999, &fs), EINVAL);
  EXPECT_FAIL(syscall(SYS_arch_prctl, ARCH_SET_FS, ~0ul), EPERM);
}
TEST(Thread, ProcessSharedSemaphore) {
  const Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  sem_t* sem = shared.as<sem_t>();
  ASSERT_OK(sem_init(sem, 1, 0));
  const pid_t child = Spawn([&] { EXPECT_OK(sem_wait(sem)); });
  usleep(5'000);
  ASSERT_OK(sem_post(sem));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(Thread, ExecFromAThreadKeepsThePid) {
  const pid_t child = Spawn([] { std::thread([] { ExecRole("print_ids"); }).join(); });
  EXPECT_EQ(WEXITSTATUS(WaitStatus(child)), 0);
}
MOAT_ROLE(print_ids) { return getpid() == gettid() && List("/proc/self/task").size() == 1 ? 0 : 1; }
// Nobody is forgotten among many who call all the time, nor who has something else to be done for it in between.
TEST(Thread, ManyCallersAllGetOn) {
  constexpr int kThreads = 64, kCalls = 200, kMaps = 5;
  std::atomic<int> through{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, maps = t % 16 == 0] {
      const ScopedFd zero(open("/dev/zero", O_RDONLY));
      char byte;
      for (int i = 0; !stop; ++i) {
        if (maps) {
          const Mapping page(kPage);
          *page.data() = 1;
        } else {
          EXPECT_EQ(read(zero.get(), &byte, 1), 1);
        }
        if (i == (maps ? kMaps : kCalls)) ++through;
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return through == kThreads; }, 60)) << through;
  stop = true;
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace moat::guest
