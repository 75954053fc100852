// Pipes and FIFOs: pipe(7), fifo(7).
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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

class Pipe : public testing::Test {
 protected:
  void SetUp() override { Make(O_NONBLOCK); }
  void Make(int flags) {
    int p[2];
    ASSERT_OK(pipe2(p, flags));
    r_.Reset(p[0]);
    w_.Reset(p[1]);
  }
  static short Events(int fd, short events = POLLIN | POLLOUT) {
    pollfd p = {fd, events, 0};
    EXPECT_OK(poll(&p, 1, 0));
    return p.revents;
  }
  // Writes whole pages until the pipe is full; the bytes written.
  size_t Fill() {
    const std::string page(kPage, 'x');
    size_t total = 0;
    for (ssize_t n; (n = write(w_.get(), page.data(), page.size())) > 0;) total += n;
    EXPECT_EQ(errno, EAGAIN);
    return total;
  }
  ScopedFd r_, w_;
};

TEST_F(Pipe, BytesArriveInOrder) {
  ASSERT_EQ(write(w_.get(), "abc", 3), 3);
  ASSERT_EQ(write(w_.get(), "def", 3), 3);
  char b[4];
  EXPECT_EQ(read(r_.get(), b, 4), 4);
  EXPECT_EQ(std::string(b, 4), "abcd");
  EXPECT_EQ(read(r_.get(), b, 4), 2);
}
TEST_F(Pipe, EmptyNonblocking) {
  char b;
  EXPECT_FAIL(read(r_.get(), &b, 1), EAGAIN);
  EXPECT_EQ(read(r_.get(), &b, 0), 0);
}
TEST_F(Pipe, EndOfFileWhenWritersAreGone) {
  ASSERT_EQ(write(w_.get(), "x", 1), 1);
  w_.Reset();
  char b;
  EXPECT_EQ(read(r_.get(), &b, 1), 1);
  EXPECT_EQ(read(r_.get(), &b, 1), 0);
}
TEST_F(Pipe, WriteWithoutReaderSignals) {
  r_.Reset();
  SignalLog::Reset();
  const ScopedAction action(SIGPIPE, SignalLog::Record);
  EXPECT_FAIL(write(w_.get(), "x", 1), EPIPE);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(Pipe, SigpipeKillsByDefault) {
  r_.Reset();
  const int status = StatusOf([&] { write(w_.get(), "x", 1); });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGPIPE);
}
TEST_F(Pipe, WrongEnd) {
  char b = 0;
  EXPECT_FAIL(read(w_.get(), &b, 1), EBADF);
  EXPECT_FAIL(write(r_.get(), &b, 1), EBADF);
}
TEST_F(Pipe, DefaultCapacityIs64K) {
  EXPECT_EQ(fcntl(w_.get(), F_GETPIPE_SZ), 65536);
  EXPECT_EQ(Fill(), 65536u);
}
TEST_F(Pipe, CapacityGrowsAndRoundsUp) {
  EXPECT_EQ(fcntl(w_.get(), F_SETPIPE_SZ, 100'000), 131072);
  EXPECT_EQ(fcntl(r_.get(), F_GETPIPE_SZ), 131072);
  EXPECT_EQ(Fill(), 131072u);
}
TEST_F(Pipe, CapacityShrinksToAPageAtLeast) { EXPECT_EQ(fcntl(w_.get(), F_SETPIPE_SZ, 1), 4096); }
TEST_F(Pipe, CapacityCannotShrinkBelowContents) {
  Fill();
  EXPECT_FAIL(fcntl(w_.get(), F_SETPIPE_SZ, 4096), EBUSY);
}
TEST_F(Pipe, CapacityOfNonPipe) {
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(fcntl(null.get(), F_GETPIPE_SZ), EBADF);
}
TEST_F(Pipe, SmallWritesAreAtomic) {
  Fill();
  char b[100];
  ASSERT_EQ(read(r_.get(), b, sizeof b), 100);  // less than a page is free, so no slot is
  const std::string chunk(PIPE_BUF, 'y');
  EXPECT_FAIL(write(w_.get(), chunk.data(), chunk.size()), EAGAIN);
}
TEST_F(Pipe, LargeNonblockingWriteIsPartial) {
  const std::string big(100'000, 'x');
  EXPECT_EQ(write(w_.get(), big.data(), big.size()), 65536);
}
TEST_F(Pipe, BlockingWriteFinishesAsTheReaderDrains) {
  Make(0);
  std::string got;
  std::thread reader([&] {
    char b[1000];
    for (ssize_t n; (n = read(r_.get(), b, sizeof b)) > 0;) got.append(b, n);
  });
  const std::string big(300'000, 'z');
  EXPECT_EQ(write(w_.get(), big.data(), big.size()), 300'000);
  w_.Reset();
  reader.join();
  EXPECT_TRUE(got == big);
}
TEST_F(Pipe, BlockedReaderWakes) {
  Make(0);
  std::thread writer([&] {
    usleep(10'000);
    write(w_.get(), "x", 1);
  });
  char b;
  EXPECT_EQ(read(r_.get(), &b, 1), 1);
  writer.join();
}
TEST_F(Pipe, BlockedReaderSeesLastWriterClose) {
  Make(0);
  std::thread closer([&] {
    usleep(10'000);
    w_.Reset();
  });
  char b;
  EXPECT_EQ(read(r_.get(), &b, 1), 0);
  closer.join();
}
TEST_F(Pipe, BlockedWriterSeesReaderClose) {
  Make(0);
  const pid_t child = Spawn([&] {
    r_.Reset();
    signal(SIGPIPE, SIG_IGN);
    const std::string big(100'000, 'z');
    EXPECT_EQ(write(w_.get(), big.data(), big.size()), 65536);
    EXPECT_FAIL(write(w_.get(), "x", 1), EPIPE);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  r_.Reset();
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Pipe, PollStates) {
  EXPECT_EQ(Events(w_.get()), POLLOUT);
  EXPECT_EQ(Events(r_.get()), 0);
  ASSERT_EQ(write(w_.get(), "x", 1), 1);
  EXPECT_EQ(Events(r_.get()), POLLIN);
  Fill();
  EXPECT_EQ(Events(w_.get()), 0);
}
TEST_F(Pipe, PollHangup) {
  ASSERT_EQ(write(w_.get(), "x", 1), 1);
  w_.Reset();
  EXPECT_EQ(Events(r_.get()), POLLIN | POLLHUP);
  char b;
  ASSERT_EQ(read(r_.get(), &b, 1), 1);
  EXPECT_EQ(Events(r_.get()), POLLHUP);
}
TEST_F(Pipe, PollWriterWithoutReader) {
  r_.Reset();
  EXPECT_TRUE(Events(w_.get()) & POLLERR);
}
TEST_F(Pipe, Fionread) {
  int n = -1;
  ASSERT_OK(ioctl(r_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 0);
  ASSERT_EQ(write(w_.get(), "abc", 3), 3);
  ASSERT_OK(ioctl(r_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 3);
}
TEST_F(Pipe, PacketMode) {
  Make(O_DIRECT | O_NONBLOCK);
  ASSERT_EQ(write(w_.get(), "one", 3), 3);
  ASSERT_EQ(write(w_.get(), "second", 6), 6);
  char b[16];
  EXPECT_EQ(read(r_.get(), b, sizeof b), 3);
  EXPECT_EQ(read(r_.get(), b, 2), 2);  // the rest of the packet is thrown away
  EXPECT_FAIL(read(r_.get(), b, sizeof b), EAGAIN);
}
TEST_F(Pipe, Flags) {
  Make(O_CLOEXEC);
  EXPECT_EQ(fcntl(r_.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(w_.get(), F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY);
  int p[2];
  EXPECT_FAIL(pipe2(p, O_APPEND), EINVAL);
  EXPECT_FAIL(pipe(reinterpret_cast<int*>(BadPointer())), EFAULT);
}
TEST_F(Pipe, StatSaysFifo) {
  struct stat st;
  ASSERT_OK(fstat(r_.get(), &st));
  EXPECT_TRUE(S_ISFIFO(st.st_mode));
  struct stat other;
  ASSERT_OK(fstat(w_.get(), &other));
  EXPECT_EQ(st.st_ino, other.st_ino);
}
TEST_F(Pipe, ProcLinkNamesTheInode) {
  struct stat st;
  ASSERT_OK(fstat(r_.get(), &st));
  char b[64];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(r_.get())).c_str(), b, sizeof b);
  ASSERT_OK(n);
  EXPECT_EQ(std::string(b, n), "pipe:[" + std::to_string(st.st_ino) + "]");
}
TEST_F(Pipe, ReopenThroughProc) {
  const ScopedFd again(open(("/proc/self/fd/" + std::to_string(r_.get())).c_str(), O_WRONLY));
  ASSERT_OK(again.get());
  ASSERT_EQ(write(again.get(), "x", 1), 1);
  char b;
  EXPECT_EQ(read(r_.get(), &b, 1), 1);
}
TEST_F(Pipe, ReopenAfterTheWriterIsGoneDoesNotWait) {
  ASSERT_EQ(write(w_.get(), "last", 4), 4);
  w_.Reset();
  const ScopedFd again(open(("/proc/self/fd/" + std::to_string(r_.get())).c_str(), O_RDONLY));
  ASSERT_OK(again.get());
  EXPECT_EQ(ReadAll(again.get()), "last");
}

class Fifo : public testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_.Join("fifo");
    ASSERT_OK(mkfifo(path_.c_str(), 0600));
  }
  TempDir dir_;
  std::string path_;
};
TEST_F(Fifo, NonblockingWriterNeedsReader) { EXPECT_FAIL(open(path_.c_str(), O_WRONLY | O_NONBLOCK), ENXIO); }
TEST_F(Fifo, NonblockingReaderOpensAtOnce) {
  const ScopedFd r(open(path_.c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_OK(r.get());
  char b;
  EXPECT_EQ(read(r.get(), &b, 1), 0);  // no writer yet
  const ScopedFd w(open(path_.c_str(), O_WRONLY | O_NONBLOCK));
  ASSERT_OK(w.get());
  EXPECT_FAIL(read(r.get(), &b, 1), EAGAIN);
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  EXPECT_EQ(read(r.get(), &b, 1), 1);
}
TEST_F(Fifo, ReadWriteOpenNeverBlocks) {
  const ScopedFd fd(open(path_.c_str(), O_RDWR));
  ASSERT_OK(fd.get());
  ASSERT_EQ(write(fd.get(), "x", 1), 1);
  char b;
  EXPECT_EQ(read(fd.get(), &b, 1), 1);
}
TEST_F(Fifo, OpenersWaitForEachOther) {
  std::atomic<bool> opened = false;
  std::atomic<pid_t> tid = 0;
  std::thread reader([&] {
    tid = gettid();
    const ScopedFd r(open(path_.c_str(), O_RDONLY));
    opened = true;
    EXPECT_EQ(ReadAll(r.get()), "through the fifo");
  });
  EXPECT_TRUE(Eventually([&] { return tid != 0; }) && Sleeps(getpid(), tid));
  EXPECT_FALSE(opened);
  {
    const ScopedFd w(open(path_.c_str(), O_WRONLY));
    EXPECT_OK(w.get());
    EXPECT_EQ(write(w.get(), "through the fifo", 16), 16);
  }
  reader.join();
}
TEST_F(Fifo, BlockedOpenIsInterrupted) {
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int) {});
    EXPECT_FAIL(open(path_.c_str(), O_RDONLY), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Fifo, DataIsLostWhenAllClose) {
  {
    const ScopedFd fd(open(path_.c_str(), O_RDWR));
    ASSERT_EQ(write(fd.get(), "x", 1), 1);
  }
  const ScopedFd r(open(path_.c_str(), O_RDONLY | O_NONBLOCK));
  char b;
  EXPECT_EQ(read(r.get(), &b, 1), 0);
}

}  // namespace
}  // namespace moat::guest
