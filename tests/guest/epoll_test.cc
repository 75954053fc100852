// epoll(7).
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Epoll : public testing::Test {
 protected:
  void SetUp() override {
    ep_.Reset(epoll_create1(EPOLL_CLOEXEC));
    ASSERT_OK(ep_.get());
    int p[2];
    ASSERT_OK(pipe2(p, O_NONBLOCK));
    r_.Reset(p[0]);
    w_.Reset(p[1]);
  }
  int Control(int op, int fd, uint32_t events, uint64_t data = 0) {
    epoll_event e = {events, {.u64 = data}};
    return epoll_ctl(ep_.get(), op, fd, &e);
  }
  int Add(int fd, uint32_t events, uint64_t data = 0) { return Control(EPOLL_CTL_ADD, fd, events, data); }
  int Wait(int timeout = 0, int max = 8) { return epoll_wait(ep_.get(), events_, max, timeout); }
  void Write(const char* text = "x") {
    ASSERT_EQ(write(w_.get(), text, strlen(text)), static_cast<ssize_t>(strlen(text)));
  }
  void Read() {
    char b;
    ASSERT_EQ(read(r_.get(), &b, 1), 1);
  }
  ScopedFd ep_, r_, w_;
  epoll_event events_[8] = {};
};

TEST_F(Epoll, NothingReady) { EXPECT_EQ(Wait(), 0); }
TEST_F(Epoll, ReportsEventAndData) {
  ASSERT_OK(Add(r_.get(), EPOLLIN, 0x123456789abcull));
  EXPECT_EQ(Wait(), 0);
  Write();
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].events, static_cast<uint32_t>(EPOLLIN));
  EXPECT_EQ(events_[0].data.u64, 0x123456789abcull);
}
TEST_F(Epoll, LevelTriggeredRepeats) {
  ASSERT_OK(Add(r_.get(), EPOLLIN));
  Write();
  EXPECT_EQ(Wait(), 1);
  EXPECT_EQ(Wait(), 1);
  Read();
  EXPECT_EQ(Wait(), 0);
}
TEST_F(Epoll, EdgeTriggeredReportsOncePerChange) {
  ASSERT_OK(Add(r_.get(), EPOLLIN | EPOLLET));
  Write();
  EXPECT_EQ(Wait(), 1);
  EXPECT_EQ(Wait(), 0);
  Write();  // new data is a new edge, though the old was not read
  EXPECT_EQ(Wait(), 1);
}
TEST_F(Epoll, EdgeTriggeredReportsStateAtAdd) {
  Write();
  ASSERT_OK(Add(r_.get(), EPOLLIN | EPOLLET));
  EXPECT_EQ(Wait(), 1);
}
TEST_F(Epoll, FilesThatCannotBeWaitedFor) {
  for (const char* path : {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/proc/self/maps",
                           "/proc/self/status", "/proc/self/fdinfo/0", "/", "/proc/self/exe"}) {
    const ScopedFd fd(open(path, O_RDONLY));
    ASSERT_OK(fd.get()) << path;
    EXPECT_FAIL(Add(fd.get(), EPOLLIN), EPERM) << path;
  }
  for (const char* path : {"/dev/random", "/proc/self/mounts", "/proc/meminfo", "/proc/sys/kernel/hostname"}) {
    const ScopedFd fd(open(path, O_RDONLY));
    ASSERT_OK(fd.get()) << path;
    EXPECT_OK(Add(fd.get(), EPOLLIN)) << path;
  }
}
TEST_F(Epoll, OneShotDisarms) {
  ASSERT_OK(Add(r_.get(), EPOLLIN | EPOLLONESHOT, 5));
  Write();
  EXPECT_EQ(Wait(), 1);
  EXPECT_EQ(Wait(), 0);
  ASSERT_OK(Control(EPOLL_CTL_MOD, r_.get(), EPOLLIN | EPOLLONESHOT, 6));
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].data.u64, 6u);
}
TEST_F(Epoll, ModifyChangesInterest) {
  ASSERT_OK(Add(w_.get(), EPOLLIN));
  EXPECT_EQ(Wait(), 0);
  ASSERT_OK(Control(EPOLL_CTL_MOD, w_.get(), EPOLLOUT));
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].events, static_cast<uint32_t>(EPOLLOUT));
}
TEST_F(Epoll, DeleteStopsReports) {
  ASSERT_OK(Add(r_.get(), EPOLLIN));
  Write();
  ASSERT_OK(epoll_ctl(ep_.get(), EPOLL_CTL_DEL, r_.get(), nullptr));
  EXPECT_EQ(Wait(), 0);
}
TEST_F(Epoll, HangupAndErrorAreAlwaysReported) {
  ASSERT_OK(Add(r_.get(), 0, 1));
  w_.Reset();
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].events, static_cast<uint32_t>(EPOLLHUP));
}
TEST_F(Epoll, RdhupOfSocket) {
  int s[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  const ScopedFd a(s[0]), b(s[1]);
  ASSERT_OK(Add(a.get(), EPOLLIN | EPOLLRDHUP));
  ASSERT_OK(shutdown(b.get(), SHUT_WR));
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].events, static_cast<uint32_t>(EPOLLIN | EPOLLRDHUP));
}
TEST_F(Epoll, ControlErrors) {
  ASSERT_OK(Add(r_.get(), EPOLLIN));
  EXPECT_FAIL(Add(r_.get(), EPOLLIN), EEXIST);
  EXPECT_FAIL(Control(EPOLL_CTL_MOD, w_.get(), EPOLLIN), ENOENT);
  EXPECT_FAIL(Control(EPOLL_CTL_DEL, w_.get(), 0), ENOENT);
  EXPECT_FAIL(Add(-1, EPOLLIN), EBADF);
  EXPECT_FAIL(Add(ep_.get(), EPOLLIN), EINVAL);
  EXPECT_FAIL(Control(99, w_.get(), EPOLLIN), EINVAL);
  epoll_event e = {};
  EXPECT_FAIL(epoll_ctl(r_.get(), EPOLL_CTL_ADD, w_.get(), &e), EINVAL);
  EXPECT_FAIL(epoll_ctl(ep_.get(), EPOLL_CTL_ADD, w_.get(), nullptr), EFAULT);
}
TEST_F(Epoll, RegularFilesAreRefused) {
  const TempDir dir;
  const ScopedFd file(open(dir.File("f").c_str(), O_RDONLY));
  EXPECT_FAIL(Add(file.get(), EPOLLIN), EPERM);
  const ScopedFd at = dir.Open();
  EXPECT_FAIL(Add(at.get(), EPOLLIN), EPERM);
}
TEST_F(Epoll, WaitErrors) {
  EXPECT_FAIL(Wait(0, 0), EINVAL);
  EXPECT_FAIL(Wait(0, -1), EINVAL);
  EXPECT_FAIL(epoll_wait(r_.get(), events_, 1, 0), EINVAL);
  EXPECT_FAIL(epoll_wait(-1, events_, 1, 0), EBADF);
  ASSERT_OK(Add(w_.get(), EPOLLOUT));
  EXPECT_FAIL(epoll_wait(ep_.get(), reinterpret_cast<epoll_event*>(BadPointer()), 1, 0), EFAULT);
}
TEST_F(Epoll, CreateErrors) {
  EXPECT_FAIL(epoll_create1(0x1), EINVAL);
  EXPECT_FAIL(epoll_create(0), EINVAL);
  const ScopedFd old(epoll_create(1));
  EXPECT_OK(old.get());
}
TEST_F(Epoll, MaxEventsRotates) {
  const ScopedFd a(eventfd(1, 0)), b(eventfd(1, 0)), c(eventfd(1, 0));
  ASSERT_OK(Add(a.get(), EPOLLIN, 1));
  ASSERT_OK(Add(b.get(), EPOLLIN, 2));
  ASSERT_OK(Add(c.get(), EPOLLIN, 4));
  uint64_t seen = 0;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Wait(0, 1), 1);
    seen |= events_[0].data.u64;
  }
  EXPECT_EQ(seen, 7u);
}
TEST_F(Epoll, CloseRemovesTheEntry) {
  ASSERT_OK(Add(r_.get(), EPOLLIN));
  Write();
  r_.Reset();
  EXPECT_EQ(Wait(), 0);
}
TEST_F(Epoll, DupKeepsTheEntryAlive) {
  const ScopedFd copy(dup(r_.get()));
  ASSERT_OK(Add(r_.get(), EPOLLIN, 3));
  Write();
  r_.Reset();
  EXPECT_EQ(Wait(), 1);  // the open file lives on in the duplicate
}
TEST_F(Epoll, SameFileUnderTwoNumbers) {
  const ScopedFd copy(dup(r_.get()));
  ASSERT_OK(Add(r_.get(), EPOLLIN, 1));
  ASSERT_OK(Add(copy.get(), EPOLLIN, 2));
  Write();
  EXPECT_EQ(Wait(), 2);
}
TEST_F(Epoll, TimeoutIsKept) {
  timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  EXPECT_EQ(Wait(30), 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  EXPECT_GE((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1'000'000, 29);
}
TEST_F(Epoll, BlockedWaiterWakes) {
  ASSERT_OK(Add(r_.get(), EPOLLIN));
  std::thread writer([&] {
    usleep(10'000);
    Write();
  });
  EXPECT_EQ(Wait(5000), 1);
  writer.join();
}
TEST_F(Epoll, AddWhileWaiting) {
  Write();
  std::thread adder([&] {
    usleep(10'000);
    EXPECT_OK(Add(r_.get(), EPOLLIN));
  });
  EXPECT_EQ(Wait(5000), 1);
  adder.join();
}
TEST_F(Epoll, Nested) {
  const ScopedFd inner(epoll_create1(0));
  epoll_event e = {EPOLLIN, {.u64 = 1}};
  ASSERT_OK(epoll_ctl(inner.get(), EPOLL_CTL_ADD, r_.get(), &e));
  ASSERT_OK(Add(inner.get(), EPOLLIN, 2));
  EXPECT_EQ(Wait(), 0);
  Write();
  ASSERT_EQ(Wait(), 1);
  EXPECT_EQ(events_[0].data.u64, 2u);
}
TEST_F(Epoll, LoopIsRefused) {
  const ScopedFd inner(epoll_create1(0));
  ASSERT_OK(Add(inner.get(), EPOLLIN));
  epoll_event e = {EPOLLIN, {.u64 = 1}};
  EXPECT_FAIL(epoll_ctl(inner.get(), EPOLL_CTL_ADD, ep_.get(), &e), ELOOP);
}
TEST_F(Epoll, PwaitMaskIsInForceWhileWaiting) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  const sigset_t none = SignalSet({});
  EXPECT_FAIL(epoll_pwait(ep_.get(), events_, 1, 5000, &none), EINTR);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(Epoll, Pwait2NanosecondTimeout) {
  const timespec timeout = {0, 2'000'000};
  EXPECT_EQ(syscall(SYS_epoll_pwait2, ep_.get(), events_, 1, &timeout, nullptr, 8), 0);
  const timespec bad = {0, 1'000'000'000};
  EXPECT_FAIL(syscall(SYS_epoll_pwait2, ep_.get(), events_, 1, &bad, nullptr, 8), EINVAL);
}
TEST_F(Epoll, SignalInterruptsEvenWithRestart) {
  const pid_t child = Spawn([&] {
    const ScopedAction action(
        SIGUSR1, [](int, siginfo_t*, void*) {}, SA_RESTART);
    EXPECT_FAIL(Wait(10'000), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Epoll, ExclusiveWakesAtLeastOne) {
  const ScopedFd other(epoll_create1(0));
  epoll_event e = {EPOLLIN | EPOLLEXCLUSIVE, {.u64 = 1}};
  ASSERT_OK(epoll_ctl(ep_.get(), EPOLL_CTL_ADD, r_.get(), &e));
  ASSERT_OK(epoll_ctl(other.get(), EPOLL_CTL_ADD, r_.get(), &e));
  EXPECT_FAIL(Control(EPOLL_CTL_MOD, r_.get(), EPOLLIN | EPOLLEXCLUSIVE), EINVAL);
  Write();
  EXPECT_EQ(Wait(1000), 1);
}
TEST_F(Epoll, ThousandsOfEventsAtOnce) {
  constexpr int kCount = 5000;
  rlimit limit;
  ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_max < kCount + 100) GTEST_SKIP() << "RLIMIT_NOFILE";
  EXPECT_TRUE(PassesInChild([&] {
    limit.rlim_cur = limit.rlim_max;
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
    const int ready = eventfd(1, 0);
    for (int i = 0; i < kCount; ++i) {
      epoll_event e = {EPOLLIN, {.u64 = static_cast<uint64_t>(i)}};
      ASSERT_OK(epoll_ctl(ep_.get(), EPOLL_CTL_ADD, fcntl(ready, F_DUPFD, 3), &e));
    }
    std::vector<epoll_event> events(kCount + 1);
    EXPECT_EQ(epoll_wait(ep_.get(), events.data(), kCount + 1, 0), kCount);
    EXPECT_EQ(epoll_wait(ep_.get(), events.data(), 10, 0), 10);
  }));
}
TEST_F(Epoll, SocketWritableAgainAfterDrain) {
  int s[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
  const ScopedFd a(s[0]), b(s[1]);
  const std::string chunk(65536, 'x');
  while (write(a.get(), chunk.data(), chunk.size()) > 0) {
  }
  ASSERT_OK(Add(a.get(), EPOLLOUT | EPOLLET));
  EXPECT_EQ(Wait(), 0);
  std::string drained(1 << 20, '\0');
  while (read(b.get(), drained.data(), drained.size()) > 0) {
  }
  EXPECT_EQ(Wait(1000), 1);
}

}  // namespace
}  // namespace moat::guest
