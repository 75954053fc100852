// io_setup(2), io_submit(2), io_getevents(2), io_pgetevents(2), io_cancel(2), io_destroy(2).
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

long IoSetup(unsigned count, aio_context_t* context) { return syscall(SYS_io_setup, count, context); }
long IoDestroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }

class Aio : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(IoSetup(8, &context_));
    fd_.Reset(open(dir_.File("f", "0123456789").c_str(), O_RDWR));
    ASSERT_OK(fd_.get());
  }
  void TearDown() override { IoDestroy(context_); }

  iocb Request(int opcode, int fd, const void* buffer = nullptr, size_t size = 0, int64_t offset = 0) {
    iocb r = {};
    r.aio_data = ++next_data_;
    r.aio_lio_opcode = static_cast<uint16_t>(opcode);
    r.aio_fildes = static_cast<uint32_t>(fd);
    r.aio_buf = reinterpret_cast<uintptr_t>(buffer);
    r.aio_nbytes = size;
    r.aio_offset = offset;
    return r;
  }
  long Submit(iocb& r) {
    iocb* list[] = {&r};
    return syscall(SYS_io_submit, context_, 1, list);
  }
  long Get(long min, long max, const timespec* timeout = nullptr) {
    return syscall(SYS_io_getevents, context_, min, max, events_, timeout);
  }
  // The result of one request that ends by itself.
  int64_t Run(iocb r) {
    if (Submit(r) != 1) return -1000 - errno;
    if (Get(1, 1) != 1) return -2000 - errno;
    EXPECT_EQ(events_[0].data, r.aio_data);
    EXPECT_EQ(events_[0].obj, reinterpret_cast<uintptr_t>(&r));
    return events_[0].res;
  }
  int fd() const { return fd_.get(); }

  static constexpr timespec kNow = {0, 0};
  aio_context_t context_ = 0;
  io_event events_[16] = {};
  uint64_t next_data_ = 100;
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(Aio, ReadsAndWritesAtOffsets) {
  char b[4] = {};
  EXPECT_EQ(Run(Request(IOCB_CMD_PREAD, fd(), b, 4, 2)), 4);
  EXPECT_EQ(std::string(b, 4), "2345");
  EXPECT_EQ(Run(Request(IOCB_CMD_PWRITE, fd(), "xy", 2, 8)), 2);
  EXPECT_EQ(ReadFile(dir_.Join("f")), "01234567xy");
  EXPECT_EQ(Run(Request(IOCB_CMD_PREAD, fd(), b, 4, 8)), 2);
  EXPECT_EQ(Run(Request(IOCB_CMD_PREAD, fd(), b, 4, 100)), 0);
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 0);
}
TEST_F(Aio, Vectors) {
  char a[3], b[5];
  iovec v[] = {{a, 3}, {b, 5}};
  EXPECT_EQ(Run(Request(IOCB_CMD_PREADV, fd(), v, 2, 1)), 8);
  EXPECT_EQ(std::string(a, 3) + std::string(b, 5), "12345678");
  EXPECT_EQ(Run(Request(IOCB_CMD_PWRITEV, fd(), v, 2, 0)), 8);
  EXPECT_EQ(ReadFile(dir_.Join("f")), "1234567889");
}
TEST_F(Aio, Syncs) {
  EXPECT_EQ(Run(Request(IOCB_CMD_FSYNC, fd())), 0);
  EXPECT_EQ(Run(Request(IOCB_CMD_FDSYNC, fd())), 0);
  iocb r = Request(IOCB_CMD_FSYNC, fd(), nullptr, 1);
  EXPECT_FAIL(Submit(r), EINVAL);
}
TEST_F(Aio, PipesHaveNoOffset) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_EQ(Run(Request(IOCB_CMD_PWRITE, p[1], "abc", 3, 77)), 3);
  char b[8];
  EXPECT_EQ(Run(Request(IOCB_CMD_PREAD, p[0], b, 8, 5)), 3);
  EXPECT_EQ(std::string(b, 3), "abc");
}
TEST_F(Aio, FlagsOfOneTransfer) {
  iocb r = Request(IOCB_CMD_PWRITE, fd(), "+", 1, 0);
  r.aio_rw_flags = RWF_APPEND;
  EXPECT_EQ(Run(r), 1);
  EXPECT_EQ(ReadFile(dir_.Join("f")), "0123456789+");
  r = Request(IOCB_CMD_PWRITE, fd(), "!", 1, 0);
  r.aio_rw_flags = RWF_DSYNC;
  EXPECT_EQ(Run(r), 1);
  r.aio_rw_flags = 1 << 30;
  EXPECT_FAIL(Submit(r), EOPNOTSUPP);
}
TEST_F(Aio, FaultsAreResults) {
  EXPECT_EQ(Run(Request(IOCB_CMD_PREAD, fd(), BadPointer(), 4)), -EFAULT);
  EXPECT_EQ(Run(Request(IOCB_CMD_PWRITE, fd(), BadPointer(), 4)), -EFAULT);
}
TEST_F(Aio, SubmitErrors) {
  char b[4];
  iocb r = Request(IOCB_CMD_PREAD, 900, b, 4);
  EXPECT_FAIL(Submit(r), EBADF);
  r = Request(77, fd(), b, 4);
  EXPECT_FAIL(Submit(r), EINVAL);
  r = Request(IOCB_CMD_NOOP, fd());
  EXPECT_FAIL(Submit(r), EINVAL);
  r = Request(IOCB_CMD_PREAD, fd(), b, 4, -1);
  EXPECT_FAIL(Submit(r), EINVAL);
  r = Request(IOCB_CMD_PREAD, fd(), b, SIZE_MAX);
  EXPECT_FAIL(Submit(r), EINVAL);
  r = Request(IOCB_CMD_PREAD, fd(), b, 4);
  r.aio_reserved2 = 1;
  EXPECT_FAIL(Submit(r), EINVAL);
  const ScopedFd read_only(open(dir_.Join("f").c_str(), O_RDONLY));
  r = Request(IOCB_CMD_PWRITE, read_only.get(), b, 4);
  EXPECT_FAIL(Submit(r), EBADF);
  const ScopedFd directory = dir_.Open();
  r = Request(IOCB_CMD_PREAD, directory.get(), b, 4);
  EXPECT_FAIL(Submit(r), EINVAL);
  r = Request(IOCB_CMD_PREAD, fd(), b, 4);
  r.aio_flags = IOCB_FLAG_RESFD;
  r.aio_resfd = static_cast<uint32_t>(fd());
  EXPECT_FAIL(Submit(r), EINVAL);
  iocb* nowhere[] = {reinterpret_cast<iocb*>(BadPointer())};
  EXPECT_FAIL(syscall(SYS_io_submit, context_, 1, nowhere), EFAULT);
  EXPECT_FAIL(syscall(SYS_io_submit, context_, 1, BadPointer()), EFAULT);
  EXPECT_FAIL(syscall(SYS_io_submit, context_, -1L, nowhere), EINVAL);
  EXPECT_EQ(syscall(SYS_io_submit, context_, 0, nowhere), 0);
  EXPECT_FAIL(syscall(SYS_io_submit, context_ + 1, 0, nowhere), EINVAL);
  EXPECT_EQ(Get(0, 1, &kNow), 0) << "nothing was taken on";
}
TEST_F(Aio, WhatWasTakenOnBeforeAnErrorCounts) {
  char b[4];
  iocb good = Request(IOCB_CMD_PREAD, fd(), b, 4), bad = Request(IOCB_CMD_PREAD, 900, b, 4);
  iocb* list[] = {&good, &bad};
  EXPECT_EQ(syscall(SYS_io_submit, context_, 2, list), 1);
  EXPECT_EQ(Get(1, 2), 1);
}
TEST_F(Aio, EventsComeInOrderAndInParts) {
  char b[4];
  iocb r[3];
  iocb* list[3];
  for (int i = 0; i < 3; ++i) {
    r[i] = Request(IOCB_CMD_PREAD, fd(), b, 4);
    list[i] = &r[i];
  }
  ASSERT_EQ(syscall(SYS_io_submit, context_, 3, list), 3);
  EXPECT_EQ(Get(1, 2), 2);
  EXPECT_EQ(events_[0].data, r[0].aio_data);
  EXPECT_EQ(events_[1].data, r[1].aio_data);
  EXPECT_EQ(Get(0, 2, &kNow), 1);
  EXPECT_EQ(events_[0].data, r[2].aio_data);
}
TEST_F(Aio, EventfdIsTold) {
  const ScopedFd event(eventfd(0, EFD_NONBLOCK));
  char b[4];
  iocb r = Request(IOCB_CMD_PREAD, fd(), b, 4);
  r.aio_flags = IOCB_FLAG_RESFD;
  r.aio_resfd = static_cast<uint32_t>(event.get());
  ASSERT_EQ(Submit(r), 1);
  uint64_t count = 0;
  EXPECT_EQ(read(event.get(), &count, 8), 8);
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(Get(1, 1), 1);
}
// Nobody can write that much; the kernel's own signals go on counting, once.
TEST_F(Aio, EventfdOverflows) {
  const ScopedFd event(eventfd(0, EFD_NONBLOCK));
  uint64_t count = ~uint64_t{0} - 1;
  ASSERT_EQ(write(event.get(), &count, 8), 8);
  char b[4];
  iocb r = Request(IOCB_CMD_PREAD, fd(), b, 4);
  r.aio_flags = IOCB_FLAG_RESFD;
  r.aio_resfd = static_cast<uint32_t>(event.get());
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(Submit(r), 1);
    EXPECT_EQ(Get(1, 1), 1);
  }
  pollfd p = {event.get(), POLLIN | POLLOUT, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN | POLLERR);
  uint64_t one = 1;
  EXPECT_FAIL(write(event.get(), &one, 8), EAGAIN);
  EXPECT_EQ(read(event.get(), &count, 8), 8);
  EXPECT_EQ(count, ~uint64_t{0});
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLOUT);
}
TEST_F(Aio, GeteventsErrors) {
  EXPECT_FAIL(Get(-1, 1, &kNow), EINVAL);
  EXPECT_FAIL(Get(0, -1, &kNow), EINVAL);
  EXPECT_FAIL(Get(2, 1, &kNow), EINVAL);
  EXPECT_FAIL(syscall(SYS_io_getevents, context_ + 1, 0, 1, events_, &kNow), EINVAL);
  EXPECT_FAIL(Get(0, 1, reinterpret_cast<timespec*>(BadPointer())), EFAULT);
  char b[4];
  iocb r = Request(IOCB_CMD_PREAD, fd(), b, 4);
  ASSERT_EQ(Submit(r), 1);
  EXPECT_FAIL(syscall(SYS_io_getevents, context_, 1, 1, BadPointer(), &kNow), EFAULT);
}
TEST_F(Aio, GeteventsTimesOut) {
  const timespec short_time = {0, 2000000};
  EXPECT_EQ(Get(1, 1, &short_time), 0);
}
TEST_F(Aio, GeteventsIsInterrupted) {
  const ScopedAction action(SIGUSR1, SignalLog::Record, SA_RESTART);
  EXPECT_TRUE(PassesInChild([&] {
    aio_context_t own = 0;
    ASSERT_OK(IoSetup(1, &own));
    const pid_t self = getpid();
    const pid_t other = Spawn([&] {
      ASSERT_TRUE(Sleeps(self));
      kill(self, SIGUSR1);
    });
    EXPECT_FAIL(syscall(SYS_io_getevents, own, 1, 1, events_, nullptr), EINTR);
    WaitStatus(other);
  }));
}
TEST_F(Aio, PgeteventsSwapsTheMask) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const ScopedBlock block({SIGUSR1});
  SignalLog::Reset();
  ASSERT_OK(raise(SIGUSR1));
  const uint64_t none = 0;
  struct {
    const uint64_t* mask;
    size_t size;
  } sigset = {&none, 8};
  EXPECT_FAIL(syscall(SYS_io_pgetevents, context_, 1, 1, events_, nullptr, &sigset), EINTR);
  EXPECT_EQ(SignalLog::count, 1);
  sigset.size = 7;
  EXPECT_FAIL(syscall(SYS_io_pgetevents, context_, 1, 1, events_, &kNow, &sigset), EINVAL);
  EXPECT_EQ(syscall(SYS_io_pgetevents, context_, 1, 1, events_, &kNow, nullptr), 0);
}
TEST_F(Aio, PollWaitsForTheFile) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  iocb poll = Request(IOCB_CMD_POLL, p[0], reinterpret_cast<void*>(POLLIN));
  ASSERT_EQ(Submit(poll), 1);
  EXPECT_EQ(Get(1, 1, &kNow), 0);
  std::thread writer([&] { EXPECT_EQ(write(p[1], "x", 1), 1); });
  EXPECT_EQ(Get(1, 1), 1);
  writer.join();
  EXPECT_EQ(events_[0].data, poll.aio_data);
  EXPECT_EQ(events_[0].res & ~POLLRDNORM, POLLIN);  // the waker says more than was asked for
  EXPECT_EQ(Get(0, 1, &kNow), 0) << "once only";
  EXPECT_EQ(Run(Request(IOCB_CMD_POLL, p[0], reinterpret_cast<void*>(POLLIN))), POLLIN) << "ready at once";
}
TEST_F(Aio, PollIsCancelled) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  iocb poll = Request(IOCB_CMD_POLL, p[0], reinterpret_cast<void*>(POLLIN));
  ASSERT_EQ(Submit(poll), 1);
  io_event unused;
  EXPECT_FAIL(syscall(SYS_io_cancel, context_, &poll, &unused), EINPROGRESS);
  EXPECT_EQ(Get(1, 1), 1);
  EXPECT_EQ(events_[0].res, 0);
  EXPECT_FAIL(syscall(SYS_io_cancel, context_, &poll, &unused), EINVAL);
  EXPECT_FAIL(syscall(SYS_io_cancel, context_, BadPointer(), &unused), EFAULT);
  EXPECT_FAIL(syscall(SYS_io_cancel, context_ + 1, &poll, &unused), EINVAL);
}
TEST_F(Aio, PollKeepsTheFileUntilTheContextGoes) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd w(p[1]);
  iocb poll = Request(IOCB_CMD_POLL, p[0], reinterpret_cast<void*>(POLLIN));
  ASSERT_EQ(Submit(poll), 1);
  ASSERT_OK(close(p[0]));
  pollfd state = {p[1], POLLOUT, 0};
  EXPECT_EQ(::poll(&state, 1, 0), 1);
  EXPECT_EQ(state.revents & POLLERR, 0) << "still somebody to read";
  ASSERT_OK(IoDestroy(context_));
  EXPECT_TRUE(Eventually([&] {
    ::poll(&state, 1, 0);
    return (state.revents & POLLERR) != 0;
  }));
}
TEST_F(Aio, SetupAndDestroyErrors) {
  aio_context_t c = 0;
  EXPECT_FAIL(IoSetup(0, &c), EINVAL);
  EXPECT_FAIL(IoSetup(~0u, &c), EINVAL);
  c = 1;
  EXPECT_FAIL(IoSetup(1, &c), EINVAL);
  EXPECT_FAIL(IoSetup(1, reinterpret_cast<aio_context_t*>(BadPointer())), EFAULT);
  c = 0;
  ASSERT_OK(IoSetup(1, &c));
  EXPECT_NE(c, 0u);
  EXPECT_NE(c, context_);
  EXPECT_OK(IoDestroy(c));
  EXPECT_FAIL(IoDestroy(c), EINVAL);
  EXPECT_FAIL(IoDestroy(0), EINVAL);
}
TEST_F(Aio, ChildrenHaveNoContexts) {
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_FAIL(Get(0, 1, &kNow), EINVAL);
    EXPECT_FAIL(IoDestroy(context_), EINVAL);
  }));
}
TEST_F(Aio, DestroyEndsAWait) {
  std::thread destroyer([&, self = gettid()] {
    EXPECT_TRUE(Sleeps(getpid(), self));
    EXPECT_OK(IoDestroy(context_));
  });
  EXPECT_FAIL(Get(1, 1), EINVAL);
  destroyer.join();
}

}  // namespace
}  // namespace moat::guest
