// eventfd(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class EventFd : public testing::Test {
 protected:
  void Make(unsigned initial, int flags) {
    fd_.Reset(eventfd(initial, flags));
    ASSERT_OK(fd_.get());
  }
  ssize_t Add(uint64_t value) { return write(fd_.get(), &value, sizeof value); }
  uint64_t Take() {
    uint64_t value = 0;
    EXPECT_EQ(read(fd_.get(), &value, sizeof value), 8);
    return value;
  }
  short Events() {
    pollfd p = {fd_.get(), POLLIN | POLLOUT, 0};
    EXPECT_OK(poll(&p, 1, 0));
    return p.revents;
  }
  ScopedFd fd_;
};

TEST_F(EventFd, InitialValueIsReadOnce) {
  Make(7, EFD_NONBLOCK);
  EXPECT_EQ(Take(), 7u);
  uint64_t v;
  EXPECT_FAIL(read(fd_.get(), &v, 8), EAGAIN);
}
TEST_F(EventFd, WritesAdd) {
  Make(1, EFD_NONBLOCK);
  ASSERT_EQ(Add(2), 8);
  ASSERT_EQ(Add(3), 8);
  EXPECT_EQ(Take(), 6u);
}
TEST_F(EventFd, SemaphoreCountsDown) {
  Make(2, EFD_NONBLOCK | EFD_SEMAPHORE);
  EXPECT_EQ(Take(), 1u);
  EXPECT_EQ(Take(), 1u);
  uint64_t v;
  EXPECT_FAIL(read(fd_.get(), &v, 8), EAGAIN);
}
TEST_F(EventFd, ShortBuffers) {
  Make(1, EFD_NONBLOCK);
  uint32_t v = 1;
  EXPECT_FAIL(read(fd_.get(), &v, 4), EINVAL);
  EXPECT_FAIL(write(fd_.get(), &v, 4), EINVAL);
}
TEST_F(EventFd, LargeBufferReadsEight) {
  Make(5, EFD_NONBLOCK);
  uint64_t v[4] = {};
  EXPECT_EQ(read(fd_.get(), v, sizeof v), 8);
  EXPECT_EQ(v[0], 5u);
}
TEST_F(EventFd, MaximumValue) {
  Make(0, EFD_NONBLOCK);
  EXPECT_FAIL(Add(UINT64_MAX), EINVAL);
  EXPECT_EQ(Add(UINT64_MAX - 1), 8);
  EXPECT_FAIL(Add(1), EAGAIN);
  EXPECT_EQ(Take(), UINT64_MAX - 1);
}
TEST_F(EventFd, AddZeroIsFine) {
  Make(0, EFD_NONBLOCK);
  EXPECT_EQ(Add(0), 8);
  EXPECT_EQ(Events(), POLLOUT);
}
TEST_F(EventFd, PollStates) {
  Make(0, EFD_NONBLOCK);
  EXPECT_EQ(Events(), POLLOUT);
  ASSERT_EQ(Add(1), 8);
  EXPECT_EQ(Events(), POLLIN | POLLOUT);
  ASSERT_EQ(Add(UINT64_MAX - 2), 8);
  EXPECT_EQ(Events(), POLLIN);
}
TEST_F(EventFd, BlockedReadWakes) {
  Make(0, 0);
  std::thread adder([&] {
    usleep(10'000);
    Add(9);
  });
  EXPECT_EQ(Take(), 9u);
  adder.join();
}
TEST_F(EventFd, BlockedWriteWakes) {
  Make(0, 0);
  ASSERT_EQ(Add(UINT64_MAX - 1), 8);
  std::thread taker([&] {
    usleep(10'000);
    Take();
  });
  EXPECT_EQ(Add(2), 8);
  taker.join();
  EXPECT_EQ(Take(), 2u);
}
TEST_F(EventFd, SharedAcrossFork) {
  Make(0, EFD_NONBLOCK);
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(Add(4), 8); }));
  EXPECT_EQ(Take(), 4u);
}
TEST_F(EventFd, FlagsAndErrors) {
  Make(0, EFD_CLOEXEC);
  EXPECT_EQ(fcntl(fd_.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(fd_.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
  EXPECT_FAIL(eventfd(0, 0x100), EINVAL);
  EXPECT_OK(syscall(SYS_eventfd, 0));
}
TEST_F(EventFd, FdinfoShowsTheCount) {
  Make(0x1f, 0);
  EXPECT_EQ(ProcField("/proc/self/fdinfo/" + std::to_string(fd_.get()), "eventfd-count"), "1f");
}
TEST_F(EventFd, ProcLinkName) {
  Make(0, 0);
  char b[64];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd_.get())).c_str(), b, sizeof b);
  ASSERT_OK(n);
  EXPECT_EQ(std::string(b, n), "anon_inode:[eventfd]");
}

}  // namespace
}  // namespace moat::guest
