// futex(2): wait, wake, bitset, requeue, wake_op, priority inheritance, robust lists, futex_waitv(2).
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

timespec After(clockid_t clock, long ns) {
  timespec t;
  clock_gettime(clock, &t);
  t.tv_nsec += ns;
  t.tv_sec += t.tv_nsec / 1'000'000'000;
  t.tv_nsec %= 1'000'000'000;
  return t;
}

// A thread that makes one call and says when it sleeps in it.
class Waiter {
 public:
  explicit Waiter(std::function<int()> call)
      : thread_([this, call = std::move(call)] {
          tid_ = gettid();
          result_ = call();
          error_ = errno;
          done_ = true;
        }) {
    Eventually([this] { return tid_ != 0; });
    Sleeps(getpid(), tid_, 1);
  }
  ~Waiter() { Join(); }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  bool done() const { return done_; }
  int result() {
    Join();
    return result_;
  }
  int error() {
    Join();
    return error_;
  }
  pid_t tid() const { return tid_; }

 private:
  std::atomic<pid_t> tid_ = 0;
  std::atomic<bool> done_ = false;
  int result_ = -2, error_ = 0;
  std::thread thread_;
};

class FutexTest : public testing::TestWithParam<int> {
 protected:
  int flag() const { return GetParam(); }
  int Wait(uint32_t value, const timespec* timeout = nullptr) {
    return Futex(&word_, FUTEX_WAIT | flag(), value, timeout);
  }
  int Wake(int count) { return Futex(&word_, FUTEX_WAKE | flag(), count); }
  alignas(4) uint32_t word_ = 0;
  alignas(4) uint32_t other_ = 0;
};

TEST_P(FutexTest, WaitOnAnotherValue) { EXPECT_FAIL(Wait(1), EAGAIN); }
TEST_P(FutexTest, WakeNobody) { EXPECT_EQ(Wake(1), 0); }
TEST_P(FutexTest, WakeOne) {
  Waiter w([&] { return Wait(0); });
  EXPECT_EQ(Wake(1), 1);
  EXPECT_EQ(w.result(), 0);
}
TEST_P(FutexTest, WakeSome) {
  Waiter a([&] { return Wait(0); }), b([&] { return Wait(0); }), c([&] { return Wait(0); });
  EXPECT_EQ(Wake(2), 2);
  EXPECT_EQ(Wake(10), 1);
}
TEST_P(FutexTest, RelativeTimeout) {
  const timespec t = {0, 10'000'000};
  EXPECT_FAIL(Wait(0, &t), ETIMEDOUT);
}
TEST_P(FutexTest, BadTimeout) {
  const timespec t = {0, 1'000'000'000};
  EXPECT_FAIL(Wait(0, &t), EINVAL);
}
TEST_P(FutexTest, BadAddress) {
  EXPECT_FAIL(Futex(BadPointer(), FUTEX_WAIT | flag(), 0), EFAULT);
  EXPECT_FAIL(Futex(reinterpret_cast<char*>(&word_) + 1, FUTEX_WAIT | flag(), 0), EINVAL);
  EXPECT_FAIL(Futex(reinterpret_cast<char*>(&word_) + 2, FUTEX_WAKE | flag(), 1), EINVAL);
}
TEST_P(FutexTest, BitsetSelectsWaiters) {
  Waiter one([&] { return Futex(&word_, FUTEX_WAIT_BITSET | flag(), 0, nullptr, nullptr, 1); });
  Waiter two([&] { return Futex(&word_, FUTEX_WAIT_BITSET | flag(), 0, nullptr, nullptr, 2); });
  EXPECT_EQ(Futex(&word_, FUTEX_WAKE_BITSET | flag(), 10, nullptr, nullptr, 2), 1);
  two.Join();
  EXPECT_FALSE(one.done());
  EXPECT_EQ(Futex(&word_, FUTEX_WAKE_BITSET | flag(), 10, nullptr, nullptr, 0xff), 1);
}
TEST_P(FutexTest, BitsetZeroIsRefused) {
  EXPECT_FAIL(Futex(&word_, FUTEX_WAIT_BITSET | flag(), 0, nullptr, nullptr, 0), EINVAL);
  EXPECT_FAIL(Futex(&word_, FUTEX_WAKE_BITSET | flag(), 1, nullptr, nullptr, 0), EINVAL);
}
TEST_P(FutexTest, BitsetTimeoutIsAbsolute) {
  const timespec past = {1, 0}, soon = After(CLOCK_MONOTONIC, 10'000'000);
  EXPECT_FAIL(Futex(&word_, FUTEX_WAIT_BITSET | flag(), 0, &past, nullptr, 1), ETIMEDOUT);
  EXPECT_FAIL(Futex(&word_, FUTEX_WAIT_BITSET | flag(), 0, &soon, nullptr, 1), ETIMEDOUT);
  const timespec real = After(CLOCK_REALTIME, 10'000'000);
  EXPECT_FAIL(Futex(&word_, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | flag(), 0, &real, nullptr, 1), ETIMEDOUT);
}
TEST_P(FutexTest, RequeueMovesWaiters) {
  Waiter a([&] { return Wait(0); }), b([&] { return Wait(0); }), c([&] { return Wait(0); });
  EXPECT_EQ(FutexTwo(&word_, FUTEX_REQUEUE | flag(), 1, 10, &other_, 0), 3);
  EXPECT_EQ(Wake(10), 0);
  EXPECT_EQ(Futex(&other_, FUTEX_WAKE | flag(), 10), 2);
}
TEST_P(FutexTest, CmpRequeueComparesFirst) {
  Waiter a([&] { return Wait(0); }), b([&] { return Wait(0); });
  EXPECT_FAIL(FutexTwo(&word_, FUTEX_CMP_REQUEUE | flag(), 1, 10, &other_, 7), EAGAIN);
  EXPECT_EQ(FutexTwo(&word_, FUTEX_CMP_REQUEUE | flag(), 1, 10, &other_, 0), 2);
  EXPECT_EQ(Futex(&other_, FUTEX_WAKE | flag(), 10), 1);
}
TEST_P(FutexTest, WakeOpChangesAndComparesTheSecondWord) {
  other_ = 5;
  Waiter a([&] { return Wait(0); }), b([&] { return Futex(&other_, FUTEX_WAIT | flag(), 5); });
  // other += 3; wake word; wake other too if its old value was > 4
  const uint32_t op = FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_GT, 4);
  EXPECT_EQ(FutexTwo(&word_, FUTEX_WAKE_OP | flag(), 1, 1, &other_, op), 2);
  EXPECT_EQ(other_, 8u);
}
TEST_P(FutexTest, WakeOpWithFalseComparison) {
  other_ = 1;
  Waiter b([&] { return Futex(&other_, FUTEX_WAIT | flag(), 1); });
  const uint32_t op = FUTEX_OP(FUTEX_OP_SET, 9, FUTEX_OP_CMP_EQ, 7);
  EXPECT_EQ(FutexTwo(&word_, FUTEX_WAKE_OP | flag(), 1, 1, &other_, op), 0);
  EXPECT_EQ(other_, 9u);
  EXPECT_EQ(Futex(&other_, FUTEX_WAKE | flag(), 1), 1);
}
TEST_P(FutexTest, SignalInterrupts) {
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int) {});
    EXPECT_FAIL(Wait(0), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_P(FutexTest, PiLockUnlock) {
  EXPECT_OK(Futex(&word_, FUTEX_LOCK_PI | flag(), 0));
  EXPECT_EQ(word_, static_cast<uint32_t>(gettid()));
  EXPECT_FAIL(Futex(&word_, FUTEX_LOCK_PI | flag(), 0), EDEADLK);
  EXPECT_FAIL(Futex(&word_, FUTEX_TRYLOCK_PI | flag(), 0), EDEADLK);
  EXPECT_OK(Futex(&word_, FUTEX_UNLOCK_PI | flag(), 0));
  EXPECT_EQ(word_, 0u);
}
TEST_P(FutexTest, PiWaiterGetsTheLock) {
  word_ = gettid();
  std::atomic<uint32_t> owner = 0;
  Waiter w([&] {
    const int result = Futex(&word_, FUTEX_LOCK_PI | flag(), 0);
    owner = __atomic_load_n(&word_, __ATOMIC_SEQ_CST) & FUTEX_TID_MASK;
    Futex(&word_, FUTEX_UNLOCK_PI | flag(), 0);
    return result;
  });
  EXPECT_TRUE(__atomic_load_n(&word_, __ATOMIC_SEQ_CST) & FUTEX_WAITERS);
  EXPECT_OK(Futex(&word_, FUTEX_UNLOCK_PI | flag(), 0));
  EXPECT_EQ(w.result(), 0);
  EXPECT_EQ(owner, static_cast<uint32_t>(w.tid()));
}
TEST_P(FutexTest, PiErrors) {
  word_ = 999'999;
  EXPECT_FAIL(Futex(&word_, FUTEX_LOCK_PI | flag(), 0), ESRCH);
  EXPECT_FAIL(Futex(&word_, FUTEX_UNLOCK_PI | flag(), 0), EPERM);
}
TEST_P(FutexTest, PiTimeoutIsAbsoluteRealtime) {
  std::atomic<int> step = 0;
  std::thread holder([&] {
    EXPECT_OK(Futex(&word_, FUTEX_LOCK_PI | flag(), 0));
    step = 1;
    while (step == 1) usleep(500);
    EXPECT_OK(Futex(&word_, FUTEX_UNLOCK_PI | flag(), 0));
  });
  ASSERT_TRUE(Eventually([&] { return step == 1; }));
  const timespec t = After(CLOCK_REALTIME, 10'000'000);
  EXPECT_FAIL(Futex(&word_, FUTEX_LOCK_PI | flag(), 0, &t), ETIMEDOUT);
  EXPECT_FAIL(Futex(&word_, FUTEX_TRYLOCK_PI | flag(), 0), EAGAIN);
  step = 2;
  holder.join();
}
TEST_P(FutexTest, UnknownOperation) { EXPECT_FAIL(Futex(&word_, 77 | flag(), 0), ENOSYS); }
INSTANTIATE_TEST_SUITE_P(, FutexTest, testing::Values(0, FUTEX_PRIVATE_FLAG),
                         [](const auto& info) { return info.param == 0 ? "Shared" : "Private"; });

TEST(FutexShared, AcrossProcessesBySharedMemory) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  const pid_t child = Spawn([&] { EXPECT_OK(Futex(m.data(), FUTEX_WAIT, 0)); });
  ASSERT_TRUE(Sleeps(child));
  EXPECT_TRUE(Eventually([&] { return Futex(m.data(), FUTEX_WAKE, 1) == 1; }));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(FutexShared, SameFilePageTwoAddresses) {
  const TempDir dir;
  const ScopedFd fd(open(dir.File("f", std::string(kPage, '\0')).c_str(), O_RDWR));
  const Mapping a(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get()),
      b(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
  Waiter w([&] { return Futex(a.data() + 8, FUTEX_WAIT, 0); });
  EXPECT_TRUE(Eventually([&] { return Futex(b.data() + 8, FUTEX_WAKE, 1) == 1; }));
  EXPECT_EQ(w.result(), 0);
}
TEST(FutexShared, PrivateMemoryIsNotSharedByFork) {
  uint32_t word = 0;
  Waiter w([&] { return Futex(&word, FUTEX_WAIT, 0); });
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(Futex(&word, FUTEX_WAKE, 1), 0); }));
  EXPECT_EQ(Futex(&word, FUTEX_WAKE, 1), 1);
}

TEST(FutexShared, WordsThatCannotBeReached) {
  // A private futex is an address and no more; a shared one is the page behind it.
  const Mapping closed(kPage, PROT_NONE);
  EXPECT_FAIL(Futex(closed.data(), FUTEX_WAKE, 1), EFAULT);
  EXPECT_EQ(Futex(closed.data(), FUTEX_WAKE_PRIVATE, 1), 0);
  const ScopedFd fd(memfd_create("futex", 0));
  ASSERT_OK(ftruncate(fd.get(), kPage));
  const Mapping file(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
  EXPECT_EQ(Futex(file.data(), FUTEX_WAKE, 1), 0);
  EXPECT_FAIL(FutexTwo(file.data(), FUTEX_REQUEUE, 1, 1, closed.data(), 0), EFAULT);
  ASSERT_OK(ftruncate(fd.get(), 0));
  EXPECT_FAIL(Futex(file.data(), FUTEX_WAKE, 1), EFAULT);
}
TEST(FutexWaitv, WakesByAnyWord) {
  alignas(4) uint32_t a = 0, b = 0;
  Waiter w([&] {
    futex_waitv v[2] = {{0, reinterpret_cast<uintptr_t>(&a), FUTEX_32 | FUTEX_PRIVATE_FLAG, 0},
                        {0, reinterpret_cast<uintptr_t>(&b), FUTEX_32 | FUTEX_PRIVATE_FLAG, 0}};
    return FutexWaitv(v, 2);
  });
  EXPECT_EQ(Futex(&b, FUTEX_WAKE_PRIVATE, 1), 1);
  EXPECT_EQ(w.result(), 1);  // the index of the woken word
}
TEST(FutexWaitv, ErrorsAndTimeout) {
  alignas(4) uint32_t a = 0;
  futex_waitv v[1] = {{0, reinterpret_cast<uintptr_t>(&a), FUTEX_32 | FUTEX_PRIVATE_FLAG, 0}};
  const timespec soon = After(CLOCK_MONOTONIC, 10'000'000);
  EXPECT_FAIL(FutexWaitv(v, 1, &soon), ETIMEDOUT);
  v[0].val = 5;
  EXPECT_FAIL(FutexWaitv(v, 1), EAGAIN);
  EXPECT_FAIL(FutexWaitv(v, 0), EINVAL);
  EXPECT_FAIL(FutexWaitv(v, 129), EINVAL);
  EXPECT_FAIL(FutexWaitv(v, 1, nullptr, CLOCK_MONOTONIC, 1), EINVAL);
  v[0].flags = 0;
  EXPECT_FAIL(FutexWaitv(v, 1), EINVAL);
  EXPECT_FAIL(FutexWaitv(reinterpret_cast<futex_waitv*>(BadPointer()), 1), EFAULT);
}

TEST(Robust, MutexOfADeadThread) {
  pthread_mutex_t mutex;
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  ASSERT_EQ(pthread_mutex_init(&mutex, &attr), 0);
  std::thread([&] { pthread_mutex_lock(&mutex); }).join();
  EXPECT_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_consistent(&mutex), 0);
  EXPECT_EQ(pthread_mutex_unlock(&mutex), 0);
  EXPECT_EQ(pthread_mutex_lock(&mutex), 0);
  pthread_mutex_unlock(&mutex);
}
TEST(Robust, SharedMutexOfAKilledProcess) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  auto* mutex = m.as<pthread_mutex_t>();
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  ASSERT_EQ(pthread_mutex_init(mutex, &attr), 0);
  WaitStatus(Spawn([&] {
    pthread_mutex_lock(mutex);
    raise(SIGKILL);
  }));
  EXPECT_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_unlock(mutex), 0);
}
TEST(Robust, WaiterIsWokenByDeath) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  auto* mutex = m.as<pthread_mutex_t>();
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  ASSERT_EQ(pthread_mutex_init(mutex, &attr), 0);
  int p[2];
  ASSERT_OK(pipe(p));
  const pid_t holder = Spawn([&] {
    pthread_mutex_lock(mutex);
    write(p[1], "x", 1);
    for (;;) pause();
  });
  char b;
  ASSERT_EQ(read(p[0], &b, 1), 1);
  Waiter w([&] {
    const int result = pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    return result;
  });
  ASSERT_OK(kill(holder, SIGKILL));
  WaitStatus(holder);
  EXPECT_EQ(w.result(), EOWNERDEAD);
  close(p[0]);
  close(p[1]);
}
TEST(Robust, PiMutexOfADeadThread) {
  pthread_mutex_t mutex;
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
  ASSERT_EQ(pthread_mutex_init(&mutex, &attr), 0);
  std::thread([&] { pthread_mutex_lock(&mutex); }).join();
  EXPECT_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  EXPECT_EQ(pthread_mutex_unlock(&mutex), 0);
}
TEST(Robust, ListCalls) {
  void* head = nullptr;
  size_t length = 0;
  ASSERT_OK(syscall(SYS_get_robust_list, 0, &head, &length));
  EXPECT_NE(head, nullptr);
  EXPECT_EQ(length, 24u);
  EXPECT_FAIL(syscall(SYS_set_robust_list, head, size_t{10}), EINVAL);
  EXPECT_FAIL(syscall(SYS_get_robust_list, 999'999, &head, &length), ESRCH);
}
TEST(PiMutex, ManyThreads) {
  pthread_mutex_t mutex;
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
  ASSERT_EQ(pthread_mutex_init(&mutex, &attr), 0);
  int counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 500; ++n) {
        pthread_mutex_lock(&mutex);
        ++counter;
        pthread_mutex_unlock(&mutex);
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(counter, 3000);
}

}  // namespace
}  // namespace moat::guest
