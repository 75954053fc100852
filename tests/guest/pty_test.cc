// Pseudo terminals, line discipline and job control.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Pty : public testing::Test {
 protected:
  void SetUp() override {
    master_.Reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_OK(master_.get());
    ASSERT_OK(grantpt(master_.get()));
    ASSERT_OK(unlockpt(master_.get()));
    char name[64];
    ASSERT_EQ(ptsname_r(master_.get(), name, sizeof name), 0);
    name_ = name;
    slave_ = OpenSlave();
    ASSERT_OK(slave_.get());
  }
  ScopedFd OpenSlave() const { return ScopedFd(open(name_.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)); }
  termios Get() const {
    termios t;
    EXPECT_OK(tcgetattr(slave_.get(), &t));
    return t;
  }
  void Set(const termios& t) const { ASSERT_OK(tcsetattr(slave_.get(), TCSANOW, &t)); }
  void Raw() const {
    termios t = Get();
    cfmakeraw(&t);
    Set(t);
  }
  void EchoOff() const {
    termios t = Get();
    t.c_lflag &= ~ECHO;
    Set(t);
  }
  void Type(const std::string& text) const {
    ASSERT_EQ(write(master_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // What can be read within a moment.
  static std::string Take(int fd, int timeout = 50) {
    std::string got;
    pollfd p = {fd, POLLIN, 0};
    char b[4096];
    while (poll(&p, 1, timeout) == 1 && (p.revents & POLLIN)) {
      const ssize_t n = read(fd, b, sizeof b);
      if (n <= 0) break;
      got.append(b, n);
      timeout = 5;
    }
    return got;
  }
  // Runs `body` in a session of its own that has the slave as controlling terminal.
  testing::AssertionResult PassesOnTerminal(const std::function<void()>& body) {
    return PassesInChild([&] {
      ASSERT_OK(setsid());
      ASSERT_OK(ioctl(slave_.get(), TIOCSCTTY, 0));
      signal(SIGHUP, SIG_IGN);
      body();
    });
  }
  ScopedFd master_, slave_;
  std::string name_;
};

TEST_F(Pty, NameAndNumber) {
  unsigned number;
  ASSERT_OK(ioctl(master_.get(), TIOCGPTN, &number));
  EXPECT_EQ(name_, "/dev/pts/" + std::to_string(number));
  struct stat st;
  ASSERT_OK(stat(name_.c_str(), &st));
  EXPECT_TRUE(S_ISCHR(st.st_mode));
}
TEST_F(Pty, EveryNumberIsAMinor) {
  rlimit files;
  ASSERT_OK(getrlimit(RLIMIT_NOFILE, &files));
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  ASSERT_OK(setrlimit(RLIMIT_NOFILE, &files));
  std::vector<ScopedFd> masters;
  unsigned number = 0;
  while (number < 2100) {
    masters.emplace_back(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_OK(masters.back().get());
    ASSERT_OK(ioctl(masters.back().get(), TIOCGPTN, &number));
  }
  const std::string name = "/dev/pts/" + std::to_string(number);
  struct stat st;
  ASSERT_OK(stat(name.c_str(), &st));
  EXPECT_EQ(major(st.st_rdev), 136u);
  EXPECT_EQ(minor(st.st_rdev), number);
  ASSERT_OK(unlockpt(masters.back().get()));
  const ScopedFd slave(open(name.c_str(), O_RDWR | O_NOCTTY));
  EXPECT_OK(slave.get());
}
TEST_F(Pty, IsATerminal) {
  EXPECT_TRUE(isatty(slave_.get()));
  EXPECT_TRUE(isatty(master_.get()));
  char name[64];
  ASSERT_EQ(ttyname_r(slave_.get(), name, sizeof name), 0);
  EXPECT_EQ(name_, name);
}
TEST_F(Pty, LockedSlaveCannotBeOpened) {
  const ScopedFd master(open("/dev/ptmx", O_RDWR | O_NOCTTY));
  char name[64];
  ASSERT_EQ(ptsname_r(master.get(), name, sizeof name), 0);
  EXPECT_FAIL(open(name, O_RDWR | O_NOCTTY), EIO);
  int lock = 0;
  ASSERT_OK(ioctl(master.get(), TIOCSPTLCK, &lock));
  const ScopedFd slave(open(name, O_RDWR | O_NOCTTY));
  EXPECT_OK(slave.get());
}
TEST_F(Pty, OpenPeer) {
  const ScopedFd peer(ioctl(master_.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY));
  ASSERT_OK(peer.get());
  Raw();
  ASSERT_EQ(write(peer.get(), "x", 1), 1);
  EXPECT_EQ(Take(master_.get()), "x");
}
TEST_F(Pty, CanonicalInputWaitsForTheLine) {
  EchoOff();
  Type("par");
  EXPECT_EQ(Take(slave_.get(), 20), "");
  Type("tial\n");
  EXPECT_EQ(Take(slave_.get()), "partial\n");
}
TEST_F(Pty, OneReadOneLine) {
  EchoOff();
  Type("one\ntwo\n");
  char b[64];
  EXPECT_EQ(read(slave_.get(), b, sizeof b), 4);
  EXPECT_EQ(read(slave_.get(), b, 2), 2);
  EXPECT_EQ(read(slave_.get(), b, sizeof b), 2);
}
TEST_F(Pty, EchoComesBackWithCarriageReturn) {
  Type("hi\n");
  EXPECT_EQ(Take(master_.get()), "hi\r\n");
  EXPECT_EQ(Take(slave_.get()), "hi\n");
}
TEST_F(Pty, EraseKillAndWordErase) {
  EchoOff();
  Type(
      "abx\x7f"
      "c\n");
  EXPECT_EQ(Take(slave_.get()), "abc\n");
  Type("gone\x15kept\n");
  EXPECT_EQ(Take(slave_.get()), "kept\n");
  Type("one two\x17three\n");
  EXPECT_EQ(Take(slave_.get()), "one three\n");
}
TEST_F(Pty, EraseEchoesBackspaces) {
  Type("a\x7f");
  EXPECT_EQ(Take(master_.get()), "a\b \b");
}
TEST_F(Pty, EofEndsTheRead) {
  EchoOff();
  Type("\x04");
  char b[8];
  EXPECT_EQ(read(slave_.get(), b, sizeof b), 0);
  Type("ab\x04");
  EXPECT_EQ(read(slave_.get(), b, sizeof b), 2);
}
TEST_F(Pty, ControlCharactersEchoWithCaret) {
  termios t = Get();
  t.c_lflag &= ~ISIG;
  Set(t);
  Type("\x01");
  EXPECT_EQ(Take(master_.get()), "^A");
}
TEST_F(Pty, LiteralNext) {
  EchoOff();
  Type(
      "a\x16\x7f"
      "b\n");
  EXPECT_EQ(Take(slave_.get()),
            "a\x7f"
            "b\n");
}
TEST_F(Pty, RawModePassesEverything) {
  Raw();
  const std::string bytes("\x03\x04\x7f\r\n\0z", 7);
  Type(bytes);
  EXPECT_EQ(Take(slave_.get()), bytes);
  EXPECT_EQ(Take(master_.get(), 10), "");
}
TEST_F(Pty, OutputNewlineTranslation) {
  ASSERT_EQ(write(slave_.get(), "a\nb", 3), 3);
  EXPECT_EQ(Take(master_.get()), "a\r\nb");
  termios t = Get();
  t.c_oflag &= ~OPOST;
  Set(t);
  ASSERT_EQ(write(slave_.get(), "a\nb", 3), 3);
  EXPECT_EQ(Take(master_.get()), "a\nb");
}
TEST_F(Pty, InputTranslation) {
  EchoOff();
  Type("a\r");  // ICRNL is on by default
  EXPECT_EQ(Take(slave_.get()), "a\n");
}
TEST_F(Pty, VminVtime) {
  Raw();
  termios t = Get();
  t.c_cc[VMIN] = 0;
  t.c_cc[VTIME] = 1;
  Set(t);
  char b;
  EXPECT_EQ(read(slave_.get(), &b, 1), 0);  // a tenth of a second, then nothing
  Type("x");
  EXPECT_EQ(read(slave_.get(), &b, 1), 1);
}
TEST_F(Pty, TermiosRoundTrip) {
  termios t = Get();
  t.c_cc[VINTR] = 7;
  t.c_lflag ^= ECHOE;
  cfsetospeed(&t, B9600);
  Set(t);
  const termios now = Get();
  EXPECT_EQ(now.c_cc[VINTR], 7);
  EXPECT_EQ(now.c_lflag, t.c_lflag);
  EXPECT_EQ(cfgetospeed(&now), static_cast<speed_t>(B9600));
}
TEST_F(Pty, LockedSettingsStay) {
  termios locked;
  ASSERT_OK(ioctl(slave_.get(), TIOCGLCKTRMIOS, &locked));
  EXPECT_EQ(locked.c_lflag, 0u);
  locked.c_lflag = ECHO;
  locked.c_cc[VINTR] = 1;
  ASSERT_OK(ioctl(slave_.get(), TIOCSLCKTRMIOS, &locked));
  const termios before = Get();
  termios t = before;
  t.c_lflag &= ~(ECHO | ISIG);
  t.c_cc[VINTR] = 'x';
  t.c_cc[VKILL] = 'y';
  Set(t);
  const termios after = Get();
  EXPECT_EQ(after.c_lflag, before.c_lflag & ~ISIG);
  EXPECT_EQ(after.c_cc[VINTR], before.c_cc[VINTR]);
  EXPECT_EQ(after.c_cc[VKILL], 'y');
  termios seen = {};
  ASSERT_OK(ioctl(master_.get(), TIOCGLCKTRMIOS, &seen));
  EXPECT_EQ(seen.c_lflag, static_cast<tcflag_t>(ECHO));
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(setuid(65534));
    EXPECT_FAIL(ioctl(slave_.get(), TIOCSLCKTRMIOS, &locked), EPERM);
  }));
}
TEST_F(Pty, TcsaflushDropsInput) {
  EchoOff();
  Type("old\n");
  // Linux hands a master's bytes to the line discipline a moment later.
  pollfd ready = {slave_.get(), POLLIN, 0};
  ASSERT_EQ(poll(&ready, 1, 5000), 1);
  const termios t = Get();
  ASSERT_OK(tcsetattr(slave_.get(), TCSAFLUSH, &t));
  EXPECT_EQ(Take(slave_.get(), 20), "");
}
TEST_F(Pty, TcflushDropsInput) {
  EchoOff();
  Type("old\n");
  // Linux hands a master's bytes to the line discipline a moment later.
  pollfd ready = {slave_.get(), POLLIN, 0};
  ASSERT_EQ(poll(&ready, 1, 5000), 1);
  ASSERT_OK(tcflush(slave_.get(), TCIFLUSH));
  EXPECT_EQ(Take(slave_.get(), 20), "");
}
TEST_F(Pty, WindowSize) {
  winsize size = {};
  ASSERT_OK(ioctl(slave_.get(), TIOCGWINSZ, &size));
  EXPECT_EQ(size.ws_row, 0);
  const winsize wanted = {50, 132, 0, 0};
  ASSERT_OK(ioctl(master_.get(), TIOCSWINSZ, &wanted));
  ASSERT_OK(ioctl(slave_.get(), TIOCGWINSZ, &size));
  EXPECT_EQ(size.ws_row, 50);
  EXPECT_EQ(size.ws_col, 132);
}
TEST_F(Pty, WindowChangeSignals) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    SignalLog::Reset();
    const ScopedAction action(SIGWINCH, SignalLog::Record);
    const winsize wanted = {10, 20, 0, 0};
    ASSERT_OK(ioctl(master_.get(), TIOCSWINSZ, &wanted));
    EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
    ASSERT_OK(ioctl(master_.get(), TIOCSWINSZ, &wanted));
    usleep(5'000);
    EXPECT_EQ(SignalLog::count, 1);  // an equal size is no change
  }));
}
TEST_F(Pty, FionreadOfCanonicalLine) {
  EchoOff();
  Type("line\n");
  pollfd p = {slave_.get(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, 1000), 1);
  int n = 0;
  ASSERT_OK(ioctl(slave_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 5);
}
TEST_F(Pty, MasterCloseHangsUp) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    SignalLog::Reset();
    const ScopedAction hup(SIGHUP, SignalLog::Record);
    master_.Reset();
  }));
  master_.Reset();
  char b;
  EXPECT_EQ(read(slave_.get(), &b, 1), 0);
  EXPECT_FAIL(write(slave_.get(), "x", 1), EIO);
}
TEST_F(Pty, SlaveCloseGivesEioOnMaster) {
  slave_.Reset();
  char b;
  EXPECT_FAIL(read(master_.get(), &b, 1), EIO);
  pollfd p = {master_.get(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_TRUE(p.revents & POLLHUP);
  slave_ = OpenSlave();  // and it can be opened again
  Raw();
  ASSERT_EQ(write(slave_.get(), "x", 1), 1);
  EXPECT_EQ(Take(master_.get()), "x");
}
TEST_F(Pty, ControllingTerminal) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    EXPECT_EQ(tcgetsid(slave_.get()), getpid());
    EXPECT_EQ(tcgetpgrp(slave_.get()), getpid());
    const ScopedFd tty(open("/dev/tty", O_RDWR));
    ASSERT_OK(tty.get());
    ASSERT_EQ(write(tty.get(), "via tty", 7), 7);
    EXPECT_EQ(Take(master_.get()), "via tty");
  }));
}
TEST_F(Pty, OpenWithoutNocttyTakesControl) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(setsid());
    EXPECT_FAIL(open("/dev/tty", O_RDWR), ENXIO);
    const ScopedFd slave(open(name_.c_str(), O_RDWR));
    ASSERT_OK(slave.get());
    const ScopedFd tty(open("/dev/tty", O_RDWR));
    EXPECT_OK(tty.get());
    signal(SIGHUP, SIG_IGN);
    ASSERT_OK(ioctl(tty.get(), TIOCNOTTY));
    EXPECT_FAIL(open("/dev/tty", O_RDWR), ENXIO);
  }));
}
struct KeyCase {
  const char* name;
  char key;
  int signal;
};
class PtyKey : public Pty, public testing::WithParamInterface<KeyCase> {};
TEST_P(PtyKey, SignalsTheForegroundGroup) {
  const pid_t child = Spawn([&] {
    ASSERT_OK(setsid());
    ASSERT_OK(ioctl(slave_.get(), TIOCSCTTY, 0));
    const pid_t job = fork();
    if (job == 0) {
      setpgid(0, 0);
      for (;;) pause();
    }
    setpgid(job, job);
    ASSERT_OK(tcsetpgrp(slave_.get(), job));
    Type(std::string(1, GetParam().key));
    int status;
    ASSERT_EQ(waitpid(job, &status, WUNTRACED), job);
    if (GetParam().signal == SIGTSTP) {
      ASSERT_TRUE(WIFSTOPPED(status));
      EXPECT_EQ(WSTOPSIG(status), SIGTSTP);
      kill(job, SIGKILL);
    } else {
      EXPECT_EQ(WTERMSIG(status), GetParam().signal);
    }
  });
  EXPECT_EQ(WaitStatus(child), 0);
}
INSTANTIATE_TEST_SUITE_P(, PtyKey,
                         testing::Values(KeyCase{"CtrlC", 3, SIGINT}, KeyCase{"CtrlBackslash", 28, SIGQUIT},
                                         KeyCase{"CtrlZ", 26, SIGTSTP}),
                         [](const auto& info) { return info.param.name; });
TEST_F(Pty, SignalKeyFlushesTheLine) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    signal(SIGINT, SIG_IGN);
    EchoOff();
    Type("dropped\x03kept\n");
    EXPECT_EQ(Take(slave_.get()), "kept\n");
  }));
}
TEST_F(Pty, BackgroundReadStops) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    const pid_t job = Spawn([&] {
      setpgid(0, 0);
      char b;
      read(slave_.get(), &b, 1);
    });
    setpgid(job, job);
    int status;
    ASSERT_EQ(waitpid(job, &status, WUNTRACED), job);
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTTIN);
    kill(job, SIGKILL);
    WaitStatus(job);
  }));
}
TEST_F(Pty, BackgroundReadWithIgnoredSignalIsEio) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    EXPECT_TRUE(PassesInChild([&] {
      setpgid(0, 0);
      signal(SIGTTIN, SIG_IGN);
      char b;
      EXPECT_FAIL(read(slave_.get(), &b, 1), EIO);
    }));
  }));
}
TEST_F(Pty, BackgroundWriteNeedsTostopToStop) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    EXPECT_TRUE(PassesInChild([&] {
      setpgid(0, 0);
      EXPECT_EQ(write(slave_.get(), "x", 1), 1);
    }));
    termios t = Get();
    t.c_lflag |= TOSTOP;
    Set(t);
    const pid_t job = Spawn([&] {
      setpgid(0, 0);
      write(slave_.get(), "y", 1);
    });
    int status;
    ASSERT_EQ(waitpid(job, &status, WUNTRACED), job);
    ASSERT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(WSTOPSIG(status), SIGTTOU);
    kill(job, SIGKILL);
    WaitStatus(job);
  }));
}
TEST_F(Pty, BackgroundTcsetpgrpStopsUnlessBlocked) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    EXPECT_TRUE(PassesInChild([&] {
      setpgid(0, 0);
      const ScopedBlock block({SIGTTOU});
      EXPECT_OK(tcsetpgrp(slave_.get(), getpgrp()));
      EXPECT_EQ(tcgetpgrp(slave_.get()), getpgrp());
    }));
  }));
}
TEST_F(Pty, TcsetpgrpErrors) {
  EXPECT_TRUE(PassesOnTerminal([&] {
    EXPECT_FAIL(tcsetpgrp(slave_.get(), 999'999), ESRCH);
    EXPECT_FAIL(tcsetpgrp(slave_.get(), -1), EINVAL);
  }));
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(tcsetpgrp(null.get(), 1), ENOTTY);
}
TEST_F(Pty, SessionLeaderExitHangsUpTheForeground) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  WaitStatus(Spawn([&] {
    setsid();
    ioctl(slave_.get(), TIOCSCTTY, 0);
    int ready[2];
    ASSERT_OK(pipe(ready));
    static int out;
    out = w.get();
    if (fork() == 0) {
      signal(SIGHUP, [](int) {
        write(out, "H", 1);
        _exit(0);
      });
      write(ready[1], "x", 1);
      for (;;) pause();
    }
    char b;
    read(ready[0], &b, 1);
  }));
  w.Reset();
  EXPECT_EQ(ReadAll(r.get()), "H");
}
TEST_F(Pty, PacketMode) {
  Raw();
  int on = 1;
  ASSERT_OK(ioctl(master_.get(), TIOCPKT, &on));
  ASSERT_EQ(write(slave_.get(), "data", 4), 4);
  EXPECT_EQ(Take(master_.get()), std::string("\0data", 5));
}
TEST_F(Pty, LargeTransferRaw) {
  Raw();
  const pid_t writer = Spawn([&] {
    const std::string chunk(1000, 'x');
    for (int i = 0; i < 200; ++i) {
      for (size_t done = 0; done < chunk.size();) {
        const ssize_t n = write(slave_.get(), chunk.data() + done, chunk.size() - done);
        ASSERT_GT(n, 0);
        done += n;
      }
    }
  });
  size_t total = 0;
  char b[4096];
  while (total < 200'000) {
    const ssize_t n = read(master_.get(), b, sizeof b);
    ASSERT_GT(n, 0);
    total += n;
  }
  EXPECT_EQ(total, 200'000u);
  EXPECT_EQ(WaitStatus(writer), 0);
}

}  // namespace
}  // namespace moat::guest
