// Which calls go on after a signal handler: signal(7), "Interruption of system calls".
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// A blocking call, made in a child; -1 with errno EINTR means it was interrupted.
struct BlockingCall {
  const char* name;
  long (*call)();
  bool restarts;  // with SA_RESTART
};

int BlockedPipe(bool reader) {
  int p[2];
  if (pipe(p) != 0) return -1;
  if (reader) return p[0];
  fcntl(p[1], F_SETFL, O_NONBLOCK);
  char page[4096] = {};
  while (write(p[1], page, sizeof page) > 0) {
  }
  fcntl(p[1], F_SETFL, 0);
  return p[1];
}
int BlockedSocket() {
  int s[2];
  return socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0 ? s[0] : -1;
}
char byte;

const BlockingCall kCalls[] = {
    {"ReadPipe", [] { return static_cast<long>(read(BlockedPipe(true), &byte, 1)); }, true},
    {"WritePipe", [] { return static_cast<long>(write(BlockedPipe(false), &byte, 1)); }, true},
    {"RecvSocket", [] { return static_cast<long>(recv(BlockedSocket(), &byte, 1, 0)); }, true},
    {"RecvWithTimeout",
     [] {
       const int s = BlockedSocket();
       const timeval timeout = {10, 0};
       setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
       return static_cast<long>(recv(s, &byte, 1, 0));
     },
     false},
    {"Poll",
     [] {
       pollfd p = {BlockedPipe(true), POLLIN, 0};
       return static_cast<long>(poll(&p, 1, 10'000));
     },
     false},
    {"Select",
     [] {
       timeval timeout = {10, 0};
       return static_cast<long>(select(0, nullptr, nullptr, nullptr, &timeout));
     },
     false},
    {"EpollWait",
     [] {
       epoll_event e;
       return static_cast<long>(epoll_wait(epoll_create1(0), &e, 1, 10'000));
     },
     false},
    {"Nanosleep",
     [] {
       const timespec t = {10, 0};
       return static_cast<long>(nanosleep(&t, nullptr));
     },
     false},
    {"ClockNanosleepAbsolute",
     [] {
       timespec t;
       clock_gettime(CLOCK_MONOTONIC, &t);
       t.tv_sec += 10;
       errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
       return errno == 0 ? 0l : -1l;
     },
     false},
    {"Pause", [] { return static_cast<long>(pause()); }, false},
    {"FutexWait",
     [] {
       static int word = 0;
       return static_cast<long>(Futex(&word, FUTEX_WAIT, 0));
     },
     true},
    {"FutexWaitTimeout",
     [] {
       static int word = 0;
       const timespec t = {10, 0};
       return static_cast<long>(Futex(&word, FUTEX_WAIT, 0, &t));
     },
     false},
    {"Waitpid",
     [] {
       const pid_t child = fork();
       if (child == 0) {
         sleep(3);
         _exit(0);
       }
       const long result = waitpid(child, nullptr, 0);
       const int error = errno;
       kill(child, SIGKILL);
       errno = error;
       return result == child ? 0l : result;
     },
     true},
    {"Flock",
     [] {
       const int fd = open("/tmp/restart-flock", O_CREAT | O_RDWR, 0600), other = open("/tmp/restart-flock", O_RDWR);
       unlink("/tmp/restart-flock");
       flock(fd, LOCK_EX);
       return static_cast<long>(flock(other, LOCK_EX));
     },
     true},
    {"Semop",
     [] {
       const int id = semget(IPC_PRIVATE, 1, 0600);
       sembuf op = {0, -1, 0};
       const long result = semop(id, &op, 1);
       const int error = errno;
       semctl(id, 0, IPC_RMID);
       errno = error;
       return result;
     },
     false},
    {"Msgrcv",
     [] {
       const int id = msgget(IPC_PRIVATE, 0600);
       struct {
         long type;
         char text[8];
       } message;
       const long result = msgrcv(id, &message, 8, 0, 0);
       const int error = errno;
       msgctl(id, IPC_RMID, nullptr);
       errno = error;
       return result;
     },
     false},
    {"Accept",
     [] {
       const int s = socket(AF_UNIX, SOCK_STREAM, 0);
       const sa_family_t family = AF_UNIX;
       bind(s, reinterpret_cast<const sockaddr*>(&family), sizeof family);
       listen(s, 1);
       return static_cast<long>(accept(s, nullptr, nullptr));
     },
     true},
    {"OpenFifo",
     [] {
       const std::string path = "/tmp/restart-fifo";
       unlink(path.c_str());
       mkfifo(path.c_str(), 0600);
       return static_cast<long>(open(path.c_str(), O_RDONLY));
     },
     true},
};

class Restart : public testing::TestWithParam<BlockingCall> {
 protected:
  // Whether the call came back after one signal; the child is killed when it did not.
  bool Returns(int flags) {
    const BlockingCall& c = GetParam();
    int p[2];
    EXPECT_OK(pipe(p));
    const ScopedFd r(p[0]), w(p[1]);
    const pid_t child = Spawn([&] {
      static int out;
      out = w.get();
      const ScopedAction action(
          SIGUSR1, [](int, siginfo_t*, void*) { write(out, "h", 1); }, flags);
      const long result = c.call();
      if (result == -1 && errno == EINTR) write(out, "e", 1);
      _exit(0);
    });
    EXPECT_TRUE(Sleeps(child));
    usleep(10'000);
    EXPECT_TRUE(Sleeps(child));
    EXPECT_OK(kill(child, SIGUSR1));
    char b = 0;
    EXPECT_EQ(read(r.get(), &b, 1), 1);
    EXPECT_EQ(b, 'h');
    pollfd poll_fd = {r.get(), POLLIN, 0};
    const bool returned = poll(&poll_fd, 1, flags & SA_RESTART ? 50 : 2000) == 1;
    kill(child, SIGKILL);
    WaitStatus(child);
    return returned;
  }
};
TEST_P(Restart, InterruptedWithoutSaRestart) { EXPECT_TRUE(Returns(0)); }
TEST_P(Restart, WithSaRestart) { EXPECT_EQ(Returns(SA_RESTART), !GetParam().restarts); }
INSTANTIATE_TEST_SUITE_P(, Restart, testing::ValuesIn(kCalls), [](const auto& info) { return info.param.name; });

TEST(RestartDetail, PartialWriteReturnsItsCount) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int) {});
    const std::string big(100'000, 'x');
    EXPECT_EQ(write(w.get(), big.data(), big.size()), 65'536);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(RestartDetail, NanosleepTellsTheRest) {
  const pid_t child = Spawn([] {
    const ScopedAction action(SIGUSR1, [](int) {});
    const timespec t = {10, 0};
    timespec left = {};
    EXPECT_FAIL(nanosleep(&t, &left), EINTR);
    EXPECT_GE(left.tv_sec, 8);
    EXPECT_LT(left.tv_sec, 10);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(RestartDetail, NanosleepGoesOnAfterStopAndCont) {
  const pid_t child = Spawn([] {
    timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    const timespec t = {0, 150'000'000};
    EXPECT_OK(nanosleep(&t, nullptr));
    clock_gettime(CLOCK_MONOTONIC, &b);
    EXPECT_GE((b.tv_sec - a.tv_sec) * 1'000 + (b.tv_nsec - a.tv_nsec) / 1'000'000, 149);
  });
  ASSERT_TRUE(Sleeps(child));
  ASSERT_OK(kill(child, SIGSTOP));
  int status;
  ASSERT_OK(waitpid(child, &status, WUNTRACED));
  ASSERT_OK(kill(child, SIGCONT));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(RestartDetail, IgnoredSignalDoesNotInterrupt) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const pid_t child = Spawn([&] {
    signal(SIGUSR1, SIG_IGN);
    char b;
    EXPECT_EQ(read(r.get(), &b, 1), 1);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  ASSERT_OK(kill(child, SIGWINCH));
  usleep(5'000);
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  EXPECT_EQ(WaitStatus(child), 0);
}

}  // namespace
}  // namespace moat::guest
