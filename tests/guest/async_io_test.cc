// Signal-driven I/O: fcntl(2) O_ASYNC, F_SETOWN, F_SETSIG on pipes, FIFOs, sockets, terminals and inotify.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>

#include <string>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

const int kSignal = SIGRTMIN + 3;

struct Pair {
  ScopedFd r, w;
};

// Signals are taken synchronously: one that a call caused is pending when the call returns.
class AsyncIo : public testing::Test {
 protected:
  static Pair MakePipe() {
    int p[2];
    EXPECT_OK(pipe2(p, O_NONBLOCK));
    return {ScopedFd(p[0]), ScopedFd(p[1])};
  }
  static Pair MakeSockets(int type) {
    int p[2];
    EXPECT_OK(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, p));
    return {ScopedFd(p[0]), ScopedFd(p[1])};
  }
  // kSignal for the events of `fd` to this process.
  static void Enable(int fd, int signal = kSignal) {
    ASSERT_OK(fcntl(fd, F_SETSIG, signal));
    ASSERT_OK(fcntl(fd, F_SETOWN, getpid()));
    ASSERT_OK(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
  }
  // The next signal that is pending; 0 when there is none within `ms`.
  int Take(int ms = 0) {
    const sigset_t set = SignalSet({SIGIO, kSignal, SIGCHLD});
    const timespec wait = {ms / 1000, ms % 1000 * 1'000'000};
    const int signal = sigtimedwait(&set, &info_, &wait);
    return signal < 0 ? 0 : signal;
  }
  void Drain() {
    while (Take() != 0) {
    }
  }
  // Fills `fd` until it would block.
  static void Fill(int fd) {
    const std::string bytes(4096, 'x');
    while (write(fd, bytes.data(), bytes.size()) > 0) {
    }
    ASSERT_EQ(errno, EAGAIN);
  }
  // For what comes after the test has ended: the last descriptors close.
  const ScopedAction sigio_{SIGIO, SignalLog::Record}, chosen_{kSignal, SignalLog::Record};
  const ScopedBlock block_{SIGIO, kSignal, SIGCHLD};
  siginfo_t info_;
};

TEST_F(AsyncIo, EachWriteSignalsTheReader) {
  const Pair p = MakePipe();
  Enable(p.r.get());
  for (int i = 0; i < 3; ++i) ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Take(), kSignal);
    EXPECT_EQ(info_.si_code, POLL_IN);
    EXPECT_EQ(info_.si_band, POLLIN | POLLRDNORM);
    EXPECT_EQ(info_.si_fd, p.r.get());
  }
  EXPECT_EQ(Take(), 0);
}
TEST_F(AsyncIo, ReadSignalsTheWriter) {
  const Pair p = MakePipe();
  ASSERT_EQ(write(p.w.get(), "xy", 2), 2);
  Enable(p.w.get());
  char c;
  ASSERT_EQ(read(p.r.get(), &c, 1), 1);
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_OUT);
  EXPECT_EQ(info_.si_band, POLLOUT | POLLWRNORM | POLLWRBAND);
  EXPECT_EQ(Take(), 0);
}
TEST_F(AsyncIo, TheOtherEndCloses) {
  Pair p = MakePipe();
  Enable(p.r.get());
  p.w.Reset();
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
  Pair q = MakePipe();
  Enable(q.w.get());
  q.r.Reset();
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_OUT);
}
TEST_F(AsyncIo, OneOfTwoWritersClosesUnnoticed) {
  Pair p = MakePipe();
  Enable(p.r.get());
  ScopedFd again(open(("/proc/self/fd/" + std::to_string(p.w.get())).c_str(), O_WRONLY | O_NONBLOCK));
  ASSERT_OK(again.get());
  EXPECT_EQ(Take(), 0);
  again.Reset();
  EXPECT_EQ(Take(), 0);
}
TEST_F(AsyncIo, WithoutASignalOfChoiceItIsSigio) {
  const Pair p = MakePipe();
  Enable(p.r.get(), 0);
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), SIGIO);
  EXPECT_EQ(info_.si_code, SI_KERNEL);
}
TEST_F(AsyncIo, ChosenSigioHasTheDescriptor) {
  const Pair p = MakePipe();
  Enable(p.r.get(), SIGIO);
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), SIGIO);
  EXPECT_EQ(info_.si_code, POLL_IN);
  EXPECT_EQ(info_.si_fd, p.r.get());
}
TEST_F(AsyncIo, SignalsWithCodesOfTheirOwnSaySigio) {
  const Pair p = MakePipe();
  Enable(p.r.get(), SIGCHLD);
  const ScopedAction action(SIGCHLD, SignalLog::Record);
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), SIGCHLD);
  EXPECT_EQ(info_.si_code, SI_SIGIO);
}
TEST_F(AsyncIo, NobodyOwnsIt) {
  const Pair p = MakePipe();
  ASSERT_OK(fcntl(p.r.get(), F_SETFL, O_ASYNC));
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(20), 0);
}
TEST_F(AsyncIo, SwitchedOff) {
  const Pair p = MakePipe();
  Enable(p.r.get());
  EXPECT_TRUE(fcntl(p.r.get(), F_GETFL) & O_ASYNC);
  int off = 0;
  ASSERT_OK(ioctl(p.r.get(), FIOASYNC, &off));
  EXPECT_FALSE(fcntl(p.r.get(), F_GETFL) & O_ASYNC);
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(20), 0);
  int on = 1;
  ASSERT_OK(ioctl(p.r.get(), FIOASYNC, &on));
  EXPECT_TRUE(fcntl(p.r.get(), F_GETFL) & O_ASYNC);
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(), kSignal);
}
TEST_F(AsyncIo, NamesTheDescriptorThatSwitchedItOn) {
  const Pair p = MakePipe();
  const ScopedFd copy(dup(p.r.get()));
  Enable(copy.get());
  ASSERT_OK(fcntl(p.r.get(), F_SETFL, O_ASYNC | O_NONBLOCK));  // no change
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_fd, copy.get());
}
TEST_F(AsyncIo, OutlivesTheDescriptor) {
  const Pair p = MakePipe();
  ScopedFd copy(dup(p.r.get()));
  Enable(copy.get());
  const int number = copy.get();
  copy.Reset();
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_fd, number);
}
TEST_F(AsyncIo, EndsWithTheDescription) {
  Pair p = MakePipe();
  const ScopedFd again(open(("/proc/self/fd/" + std::to_string(p.r.get())).c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_OK(again.get());
  Enable(p.r.get());
  p.r.Reset();
  Drain();
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(20), 0);
}
TEST_F(AsyncIo, FullSignalQueueMakesItSigio) {
  EXPECT_TRUE(PassesInChild([&] {
    const Pair p = MakePipe();
    Enable(p.r.get());
    const rlimit none = {0, 0};
    ASSERT_OK(setrlimit(RLIMIT_SIGPENDING, &none));
    ASSERT_EQ(write(p.w.get(), "x", 1), 1);
    EXPECT_EQ(Take(), SIGIO);
  }));
}
TEST_F(AsyncIo, FilesWithoutIt) {
  const TempDir dir;
  const ScopedFd file(open(dir.File("f").c_str(), O_RDWR));
  const ScopedFd event(eventfd(0, 0));
  const ScopedFd timer(timerfd_create(CLOCK_MONOTONIC, 0));
  const ScopedFd epoll(epoll_create1(0));
  for (int fd : {file.get(), event.get(), timer.get(), epoll.get()}) {
    ASSERT_OK(fcntl(fd, F_SETFL, O_ASYNC));
    EXPECT_FALSE(fcntl(fd, F_GETFL) & O_ASYNC);
    int flag = 1;
    EXPECT_FAIL(ioctl(fd, FIOASYNC, &flag), ENOTTY);
    flag = 0;
    EXPECT_OK(ioctl(fd, FIOASYNC, &flag));
  }
}
TEST_F(AsyncIo, ThreadsAndGroupsAsOwners) {
  const Pair p = MakePipe();
  Enable(p.r.get());
  const f_owner_ex me = {F_OWNER_TID, gettid()};
  ASSERT_OK(fcntl(p.r.get(), F_SETOWN_EX, &me));
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(), kSignal);
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(setpgid(0, 0));
    ASSERT_OK(fcntl(p.r.get(), F_SETOWN, -getpid()));
    EXPECT_EQ(fcntl(p.r.get(), F_GETOWN), -getpid());
    ASSERT_EQ(write(p.w.get(), "x", 1), 1);
    EXPECT_EQ(Take(), kSignal);
  }));
  EXPECT_NE(Take(), kSignal);
}
TEST_F(AsyncIo, OwnerNamedByAStranger) {
  if (geteuid() != 0) GTEST_SKIP() << "needs two users";
  const Pair p = MakePipe();
  const pid_t root = getpid();
  EXPECT_TRUE(PassesAsUser(1234, [&] {
    ASSERT_OK(fcntl(p.r.get(), F_SETSIG, kSignal));
    ASSERT_OK(fcntl(p.r.get(), F_SETOWN, root));
    ASSERT_OK(fcntl(p.r.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  }));
  Drain();
  ASSERT_EQ(write(p.w.get(), "x", 1), 1);
  EXPECT_EQ(Take(20), 0);
}
TEST_F(AsyncIo, AWriterThatSleepsHasSignalledBefore) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  const ScopedFd r(fds[0]);
  ScopedFd w(fds[1]);
  Enable(r.get());
  std::thread writer([&] {
    const std::string big(200'000, 'x');
    EXPECT_EQ(write(w.get(), big.data(), big.size()), 200'000);
  });
  EXPECT_EQ(Take(5000), kSignal);
  size_t total = 0;
  std::string b(65536, 0);
  for (pollfd ready = {r.get(), POLLIN, 0}; total < 200'000 && poll(&ready, 1, 5000) == 1;) {
    const ssize_t n = read(r.get(), b.data(), b.size());
    if (n > 0) total += static_cast<size_t>(n);
  }
  writer.join();
  EXPECT_EQ(total, 200'000u);
}
TEST_F(AsyncIo, Fifo) {
  const TempDir dir;
  const std::string path = dir.Join("fifo");
  ASSERT_OK(mkfifo(path.c_str(), 0600));
  const ScopedFd r(open(path.c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_OK(r.get());
  Enable(r.get());
  ScopedFd w(open(path.c_str(), O_WRONLY));
  ASSERT_OK(w.get());
  EXPECT_EQ(Take(), 0);
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  EXPECT_EQ(Take(), kSignal);
  w.Reset();
  EXPECT_EQ(Take(), kSignal);
}

TEST_F(AsyncIo, StreamSocket) {
  Pair s = MakeSockets(SOCK_STREAM);
  Enable(s.r.get());
  ASSERT_EQ(write(s.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
  ASSERT_OK(shutdown(s.w.get(), SHUT_WR));
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
  s.w.Reset();
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_HUP);
  EXPECT_EQ(info_.si_band, POLLHUP | POLLERR);
}
TEST_F(AsyncIo, StreamSocketWithRoomAgain) {
  const Pair s = MakeSockets(SOCK_STREAM);
  Enable(s.r.get());
  ASSERT_EQ(write(s.r.get(), "x", 1), 1);
  char b[65536];
  ASSERT_EQ(read(s.w.get(), b, 1), 1);
  EXPECT_EQ(Take(), 0);  // nobody missed the room
  Fill(s.r.get());
  while (read(s.w.get(), b, sizeof b) > 0) {
  }
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_OUT);
}
TEST_F(AsyncIo, DatagramSocket) {
  const Pair s = MakeSockets(SOCK_DGRAM);
  Enable(s.r.get());
  ASSERT_EQ(write(s.w.get(), "x", 1), 1);
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
}
TEST_F(AsyncIo, ListeningSocket) {
  const ScopedFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_un address = {AF_UNIX, {}};
  ASSERT_OK(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)));  // a name of its own
  socklen_t length = sizeof address;
  ASSERT_OK(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length));
  ASSERT_OK(listen(listener.get(), 5));
  Enable(listener.get());
  const ScopedFd client(socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_OK(connect(client.get(), reinterpret_cast<sockaddr*>(&address), length));
  ASSERT_EQ(Take(), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
}
TEST_F(AsyncIo, OldNamesOfTheOwner) {
  const Pair s = MakeSockets(SOCK_STREAM);
  int pid = getpid();
  ASSERT_OK(ioctl(s.r.get(), SIOCSPGRP, &pid));
  EXPECT_EQ(fcntl(s.r.get(), F_GETOWN), pid);
  pid = -getpgrp();
  ASSERT_OK(ioctl(s.r.get(), FIOSETOWN, &pid));
  int got = 0;
  ASSERT_OK(ioctl(s.r.get(), FIOGETOWN, &got));
  EXPECT_EQ(got, pid);
  ASSERT_OK(ioctl(s.r.get(), SIOCGPGRP, &got));
  EXPECT_EQ(got, pid);
  pid = 1 << 30;
  EXPECT_FAIL(ioctl(s.r.get(), SIOCSPGRP, &pid), ESRCH);
  const Pair p = MakePipe();
  EXPECT_FAIL(ioctl(p.r.get(), SIOCGPGRP, &got), ENOTTY);
}

class AsyncTerminal : public AsyncIo {
 protected:
  void SetUp() override {
    master_.Reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    ASSERT_OK(master_.get());
    ASSERT_OK(unlockpt(master_.get()));
    char name[64];
    ASSERT_EQ(ptsname_r(master_.get(), name, sizeof name), 0);
    slave_.Reset(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    ASSERT_OK(slave_.get());
  }
  ScopedFd master_, slave_;
};
TEST_F(AsyncTerminal, InputOfTheSlave) {
  Enable(slave_.get());
  ASSERT_EQ(write(master_.get(), "line\n", 5), 5);
  ASSERT_EQ(Take(2000), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
  EXPECT_EQ(info_.si_fd, slave_.get());
}
TEST_F(AsyncTerminal, OutputReachesTheMaster) {
  Enable(master_.get());
  ASSERT_EQ(write(slave_.get(), "out", 3), 3);
  ASSERT_EQ(Take(2000), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
}
TEST_F(AsyncTerminal, OwnerIsTheCallerUnlessNamed) {
  EXPECT_EQ(fcntl(slave_.get(), F_GETOWN), 0);
  ASSERT_OK(fcntl(slave_.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  EXPECT_EQ(fcntl(slave_.get(), F_GETOWN), getpid());
  ASSERT_OK(fcntl(master_.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  EXPECT_EQ(fcntl(master_.get(), F_GETOWN), getpid());
}
TEST_F(AsyncTerminal, OwnerIsTheForegroundGroup) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(setsid());
    ASSERT_OK(ioctl(slave_.get(), TIOCSCTTY, 0));
    ASSERT_OK(fcntl(slave_.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
    EXPECT_EQ(fcntl(slave_.get(), F_GETOWN), -getpid());
  }));
}

TEST_F(AsyncIo, Inotify) {
  const TempDir dir;
  const ScopedFd watch(inotify_init1(IN_NONBLOCK));
  ASSERT_OK(inotify_add_watch(watch.get(), dir.path().c_str(), IN_CREATE));
  Enable(watch.get());
  dir.File("new");
  ASSERT_EQ(Take(2000), kSignal);
  EXPECT_EQ(info_.si_code, POLL_IN);
}
TEST_F(AsyncIo, LeaseNamesItsDescriptor) {
  const TempDir dir;
  const std::string path = dir.File("f");
  const ScopedFd fd(open(path.c_str(), O_RDONLY));
  ASSERT_OK(fcntl(fd.get(), F_SETSIG, kSignal));
  ASSERT_OK(fcntl(fd.get(), F_SETLEASE, F_RDLCK));
  EXPECT_FAIL(open(path.c_str(), O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
  ASSERT_EQ(Take(2000), kSignal);
  EXPECT_EQ(info_.si_code, POLL_MSG);
  EXPECT_EQ(info_.si_band, POLLIN | POLLRDNORM | POLLMSG);
  EXPECT_EQ(info_.si_fd, fd.get());
}

}  // namespace
}  // namespace moat::guest
