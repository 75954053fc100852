// timerfd_create(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

constexpr long kMs = 1'000'000;

class TimerFd : public testing::Test {
 protected:
  void Make(clockid_t clock = CLOCK_MONOTONIC, int flags = TFD_NONBLOCK) {
    fd_.Reset(timerfd_create(clock, flags));
    ASSERT_OK(fd_.get());
  }
  int Set(long first_ns, long interval_ns = 0, int flags = 0) {
    const itimerspec spec = {{interval_ns / 1'000'000'000, interval_ns % 1'000'000'000},
                             {first_ns / 1'000'000'000, first_ns % 1'000'000'000}};
    return timerfd_settime(fd_.get(), flags, &spec, nullptr);
  }
  bool Ready(int timeout) {
    pollfd p = {fd_.get(), POLLIN, 0};
    return poll(&p, 1, timeout) == 1 && p.revents == POLLIN;
  }
  // The number of expirations, or -1 with errno.
  int64_t Take() {
    uint64_t n;
    const ssize_t result = read(fd_.get(), &n, sizeof n);
    return result == 8 ? static_cast<int64_t>(n) : result;
  }
  ScopedFd fd_;
};

TEST_F(TimerFd, ExpiresOnce) {
  Make();
  ASSERT_OK(Set(5 * kMs));
  EXPECT_FAIL(Take(), EAGAIN);
  ASSERT_TRUE(Ready(5000));
  EXPECT_EQ(Take(), 1);
  EXPECT_FAIL(Take(), EAGAIN);
}
TEST_F(TimerFd, IntervalCountsMissedOnes) {
  Make();
  ASSERT_OK(Set(2 * kMs, 2 * kMs));
  usleep(50'000);
  EXPECT_GE(Take(), 10);
}
TEST_F(TimerFd, BlockingReadWaits) {
  Make(CLOCK_MONOTONIC, 0);
  ASSERT_OK(Set(10 * kMs));
  EXPECT_EQ(Take(), 1);
}
TEST_F(TimerFd, AbsoluteInThePastExpiresAtOnce) {
  Make();
  ASSERT_OK(Set(1, 0, TFD_TIMER_ABSTIME));
  EXPECT_TRUE(Ready(1000));
  EXPECT_EQ(Take(), 1);
}
TEST_F(TimerFd, AbsoluteFuture) {
  Make(CLOCK_REALTIME);
  timespec now;
  ASSERT_OK(clock_gettime(CLOCK_REALTIME, &now));
  ASSERT_OK(Set(now.tv_sec * 1'000'000'000 + now.tv_nsec + 10 * kMs, 0, TFD_TIMER_ABSTIME));
  EXPECT_FALSE(Ready(0));
  EXPECT_TRUE(Ready(5000));
}
TEST_F(TimerFd, ZeroDisarms) {
  Make();
  ASSERT_OK(Set(5 * kMs));
  ASSERT_OK(Set(0));
  EXPECT_FALSE(Ready(20));
}
TEST_F(TimerFd, RearmDropsOldExpirations) {
  Make();
  ASSERT_OK(Set(1));
  ASSERT_TRUE(Ready(1000));
  ASSERT_OK(Set(3600l * 1'000'000'000));
  EXPECT_FAIL(Take(), EAGAIN);
}
TEST_F(TimerFd, GettimeCountsDown) {
  Make();
  ASSERT_OK(Set(100l * 1'000'000'000, 7l * 1'000'000'000));
  itimerspec left;
  ASSERT_OK(timerfd_gettime(fd_.get(), &left));
  EXPECT_LE(left.it_value.tv_sec, 100);
  EXPECT_GE(left.it_value.tv_sec, 98);
  EXPECT_EQ(left.it_interval.tv_sec, 7);
}
TEST_F(TimerFd, GettimeOfDisarmedIsZero) {
  Make();
  itimerspec left = {{1, 1}, {1, 1}};
  ASSERT_OK(timerfd_gettime(fd_.get(), &left));
  EXPECT_EQ(left.it_value.tv_sec + left.it_value.tv_nsec, 0);
}
TEST_F(TimerFd, SettimeReturnsTheOldValue) {
  Make();
  ASSERT_OK(Set(50l * 1'000'000'000));
  const itimerspec next = {{0, 0}, {1, 0}};
  itimerspec old;
  ASSERT_OK(timerfd_settime(fd_.get(), 0, &next, &old));
  EXPECT_GE(old.it_value.tv_sec, 48);
}
TEST_F(TimerFd, Errors) {
  EXPECT_FAIL(timerfd_create(999, 0), EINVAL);
  EXPECT_FAIL(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
  EXPECT_FAIL(timerfd_create(CLOCK_MONOTONIC, 0x1), EINVAL);
  Make();
  const itimerspec bad = {{0, 0}, {0, 1'000'000'000}};
  EXPECT_FAIL(timerfd_settime(fd_.get(), 0, &bad, nullptr), EINVAL);
  EXPECT_FAIL(timerfd_settime(fd_.get(), 0x100, &bad, nullptr), EINVAL);

  const ScopedFd null(open("/dev/null", O_RDWR));
  const itimerspec good = {{0, 0}, {1, 0}};
  EXPECT_FAIL(timerfd_settime(-1, 0, &good, nullptr), EBADF);
  EXPECT_FAIL(timerfd_settime(null.get(), 0, &good, nullptr), EINVAL);
  uint32_t small;
  EXPECT_FAIL(read(fd_.get(), &small, 4), EINVAL);
  EXPECT_FAIL(write(fd_.get(), &small, 4), EINVAL);
}
TEST_F(TimerFd, FlagsOfTheDescriptor) {
  Make(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  EXPECT_EQ(fcntl(fd_.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(fcntl(fd_.get(), F_GETFL) & O_NONBLOCK);
}
TEST_F(TimerFd, SurvivesForkShared) {
  Make();
  ASSERT_OK(Set(1));
  ASSERT_TRUE(Ready(1000));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(Take(), 1); }));
  EXPECT_FAIL(Take(), EAGAIN);
}

}  // namespace
}  // namespace moat::guest
