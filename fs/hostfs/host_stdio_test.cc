#include "fs/hostfs/host_stdio.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include <csignal>
#include <cstring>
#include <string>

#include "fs/overlay/vfs_for_test.h"

namespace moat {
namespace {

// A guest whose memory is the test's own.
class OwnMemory final : public GuestMemory {
 public:
  size_t CopyIn(void* dst, GuestAddr src, size_t n) override {
    memcpy(dst, reinterpret_cast<void*>(src), n);
    return n;
  }
  size_t CopyOut(GuestAddr dst, const void* src, size_t n) override {
    memcpy(reinterpret_cast<void*>(dst), src, n);
    return n;
  }
  size_t ZeroOut(GuestAddr dst, size_t n) override {
    memset(reinterpret_cast<void*>(dst), 0, n);
    return n;
  }
  Result<size_t> WithSegments(GuestAddr addr, size_t n, bool, SegmentIo io) override {
    iovec v{reinterpret_cast<void*>(addr), n};
    return io(&v, 1);
  }
  Result<uint32_t> Load32(GuestAddr) override { return kEFAULT; }
  Result<uint32_t> CompareExchange32(GuestAddr, uint32_t, uint32_t) override { return kEFAULT; }
};

class NoFs final : public FileSystem {
 public:
  NoFs() : FileSystem("none") {}
  RefPtr<Inode> root() override { return RefPtr<Inode>(&HostRoot()); }
  Result<FsStat> StatFs() override { return kENOSYS; }

 private:
  class Root final : public Inode {
   public:
    explicit Root(FileSystem& fs) : Inode(fs, S_IFDIR, 1) {}
    Result<Kstat> GetAttr() override { return Kstat{}; }
    Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kEACCES; }
  };
  Root& HostRoot() {
    if (!root_) root_ = MakeRef<Root>(*this);
    return *root_;
  }
  RefPtr<Root> root_;
};

class HostStdioTest : public testing::Test {
 protected:
  HostStdioTest() : vfs_(MakeRef<NoFs>()) { signal(SIGPIPE, SIG_IGN); }
  RefPtr<File> Wrap(int fd) {
    std::vector<ScopedFd> fds;
    fds.emplace_back(fd);
    stdio_ = WrapHostStdio(std::move(fds), nullptr).value();
    return stdio_.files[0];
  }
  Result<std::string> Read(File& file, size_t n = 100) {
    std::string out(n, '\0');
    BufferIoDest dest(out.data(), n);
    out.resize(TRY(file.Read(vfs_.ctx(), dest)));
    return out;
  }
  Result<size_t> Write(File& file, std::string_view data) {
    BufferIoSource source(data.data(), data.size());
    return file.Write(vfs_.ctx(), source);
  }

  VfsForTest vfs_;
  HostStdio stdio_;
};

TEST_F(HostStdioTest, APipeAnswersEagainInsteadOfBlocking) {
  int ends[2];
  ASSERT_EQ(0, pipe(ends));
  RefPtr<File> in = Wrap(ends[0]);
  EXPECT_TRUE(in->SupportsEpoll());
  EXPECT_EQ(kEAGAIN, Read(*in).error());
  EXPECT_EQ(0u, in->Poll(EPOLLIN));
  ASSERT_EQ(5, write(ends[1], "hello", 5));
  EXPECT_EQ(EventMask{EPOLLIN}, in->Poll(EPOLLIN));
  EXPECT_EQ("hello", Read(*in).value());
  close(ends[1]);
  EXPECT_EQ("", Read(*in).value());
  EXPECT_NE(0u, in->Poll(EPOLLIN) & EPOLLHUP);
  // The flags of the shared description are the caller's.
  EXPECT_EQ(0, fcntl(ends[0], F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(S_ISFIFO(in->GetAttr()->mode));
}

TEST_F(HostStdioTest, AFullPipeTakesNoMore) {
  int ends[2];
  ASSERT_EQ(0, pipe(ends));
  RefPtr<File> out = Wrap(ends[1]);
  size_t total = 0;
  Errno end = Errno::kOK;
  for (int i = 0; i < 1000 && end == Errno::kOK; ++i) {
    Result<size_t> n = Write(*out, std::string(4096, 'x'));
    end = n.error();
    total += n.value_or(0);
  }
  EXPECT_EQ(kEAGAIN, end);
  EXPECT_GE(total, 4096u);
  EXPECT_EQ(0u, out->Poll(EPOLLOUT));
  close(ends[0]);
  EXPECT_EQ(kEPIPE, Write(*out, "x").error());
}

TEST_F(HostStdioTest, AWaiterHearsOfInput) {
  int ends[2];
  ASSERT_EQ(0, pipe(ends));
  RefPtr<File> in = Wrap(ends[0]);
  Parker parker;
  ParkerWaiter waiter(EPOLLIN, parker);
  in->wait_queue().Add(waiter);
  while (parker.Park(DeadlineAfter(0))) {
  }
  ASSERT_EQ(1, write(ends[1], "x", 1));
  EXPECT_TRUE(parker.Park(DeadlineAfter(5 * kNanosPerSec)));
  in->wait_queue().Remove(waiter);
  close(ends[1]);
}

TEST_F(HostStdioTest, ASocket) {
  int ends[2];
  ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  RefPtr<File> file = Wrap(ends[0]);
  EXPECT_EQ(kEAGAIN, Read(*file).error());
  EXPECT_EQ(4u, Write(*file, "ping").value());
  char buffer[8];
  EXPECT_EQ(4, read(ends[1], buffer, sizeof buffer));
  ASSERT_EQ(4, write(ends[1], "pong", 4));
  EXPECT_EQ("pong", Read(*file).value());
  close(ends[1]);
  EXPECT_EQ("", Read(*file).value());
  EXPECT_EQ(kEPIPE, Write(*file, "x").error());
}

TEST_F(HostStdioTest, ARegularFileSharesItsOffset) {
  char name[] = "/tmp/moat-stdio-XXXXXX";
  int fd = mkstemp(name);
  unlink(name);
  int callers = dup(fd);
  ASSERT_EQ(6, write(callers, "before", 6));
  RefPtr<File> file = Wrap(fd);
  EXPECT_EQ(5u, Write(*file, "guest").value());
  EXPECT_EQ(11, lseek(callers, 0, SEEK_CUR));
  ASSERT_EQ(5, write(callers, "after", 5));
  lseek(callers, 0, SEEK_SET);
  EXPECT_EQ("beforeguestafter", Read(*file).value());
  EXPECT_EQ(16, lseek(callers, 0, SEEK_CUR));
  close(callers);
}

// Where the shared offset is only a gofer knows (tests/oci/terminal_test.py, PlainFile).
TEST_F(HostStdioTest, TheFileSizeLimitCountsForAppends) {
  char name[] = "/tmp/moat-stdio-XXXXXX";
  int fd = mkstemp(name);
  unlink(name);
  ASSERT_EQ(6, write(fd, "before", 6));
  RefPtr<File> file = Wrap(fd);
  ASSERT_TRUE(file->SetStatusFlags(O_APPEND).ok());
  VfsContext ctx = vfs_.ctx();
  ctx.file_size_limit = 8;
  BufferIoSource long_one("guest", 5), next("x", 1);
  EXPECT_EQ(2u, file->Write(ctx, long_one).value());
  ctx.file_size_limit = 6;
  EXPECT_EQ(kEFBIG, file->Write(ctx, next).error());
}

TEST_F(HostStdioTest, DevNullIsAlwaysReady) {
  RefPtr<File> file = Wrap(open("/dev/null", O_RDWR));
  EXPECT_EQ("", Read(*file).value());
  EXPECT_EQ(3u, Write(*file, "abc").value());
  EXPECT_EQ(EventMask{EPOLLIN | EPOLLOUT}, file->Poll(EPOLLIN | EPOLLOUT));
  EXPECT_FALSE(file->SupportsEpoll());
  EXPECT_FALSE(stdio_.tty);
}

TEST_F(HostStdioTest, OpeningAgainReachesTheSameFile) {
  int ends[2];
  ASSERT_EQ(0, pipe(ends));
  RefPtr<File> in = Wrap(ends[0]);
  RefPtr<File> again = vfs::OpenPath(vfs_.ctx(), in->path(), {.flags = O_RDONLY}).value();
  ASSERT_EQ(1, write(ends[1], "x", 1));
  EXPECT_EQ("x", Read(*again).value());
  EXPECT_EQ(kEACCES, in->inode()->Open(vfs_.ctx(), in->path(), OpenFlags{O_WRONLY}).error());
  close(ends[1]);
}

class HostTtyTest : public HostStdioTest {
 protected:
  HostTtyTest() {
    int slave;
    EXPECT_EQ(0, openpty(&master_, &slave, nullptr, nullptr, nullptr));
    tty_ = Wrap(slave);
  }
  ~HostTtyTest() override { close(master_); }
  template <typename T>
  Result<int64_t> Ioctl(uint32_t cmd, T* arg) {
    return tty_->Ioctl(vfs_.ctx(), memory_, cmd, reinterpret_cast<uint64_t>(arg));
  }

  int master_ = -1;
  RefPtr<File> tty_;
  OwnMemory memory_;
};

TEST_F(HostTtyTest, ReadsLinesAndWrites) {
  ASSERT_TRUE(stdio_.tty);
  EXPECT_EQ(kEAGAIN, Read(*tty_).error());
  ASSERT_EQ(5, write(master_, "line\n", 5));
  Result<std::string> line = kEAGAIN;
  for (int i = 0; i < 1000 && !line.ok(); ++i) {
    line = Read(*tty_);
    if (!line.ok()) usleep(1000);
  }
  EXPECT_EQ("line\n", line.value());
  EXPECT_EQ(3u, Write(*tty_, "out").value());
}

TEST_F(HostTtyTest, SettingsAndSizeAreTheHosts) {
  winsize size = {24, 80, 0, 0};
  EXPECT_TRUE(Ioctl(TIOCSWINSZ, &size).ok());
  winsize seen = {};
  ASSERT_EQ(0, ioctl(master_, TIOCGWINSZ, &seen));
  EXPECT_EQ(80, seen.ws_col);
  char settings[64], before[64];
  memset(settings, 0x5a, sizeof settings);
  memcpy(before, settings, sizeof before);
  EXPECT_TRUE(Ioctl(TCGETS, settings).ok());
  EXPECT_EQ(0, memcmp(settings + 36, before + 36, sizeof settings - 36)) << "more than the structure was written";
  EXPECT_TRUE(Ioctl(TCSETS, settings).ok());
  int waiting = -1;
  EXPECT_TRUE(Ioctl(FIONREAD, &waiting).ok());
  EXPECT_EQ(0, waiting);
}

TEST_F(HostTtyTest, NoInputIsPutBeforeTheHostsPrograms) {
  char c = 'x';
  EXPECT_EQ(kEPERM, Ioctl(TIOCSTI, &c).error());
  EXPECT_EQ(kENOTTY, Ioctl(0x5467, &c).error());
}

TEST_F(HostTtyTest, AHungUpTerminalEnds) {
  stdio_.tty->Hangup();
  EXPECT_EQ("", Read(*tty_).value());
  EXPECT_EQ(kEIO, Write(*tty_, "x").error());
  EXPECT_NE(0u, tty_->Poll(EPOLLIN) & EPOLLHUP);
}

}  // namespace
}  // namespace moat
