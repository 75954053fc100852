// fork(2), vfork(2), clone(2), clone3(2), exit codes, process attributes that children inherit.
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
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

TEST(Fork, ChildHasItsOwnPidAndOurs) {
  const pid_t parent = getpid();
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_EQ(getppid(), parent);
    EXPECT_NE(getpid(), parent);
    EXPECT_EQ(gettid(), getpid());
  }));
}
TEST(Fork, MemoryIsCopied) {
  int value = 1;
  EXPECT_TRUE(PassesInChild([&] { value = 2; }));
  EXPECT_EQ(value, 1);
}
TEST(Fork, PendingSignalsAreNotInherited) {
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_TRUE(PassesInChild([] {
    sigset_t pending;
    ASSERT_OK(sigpending(&pending));
    EXPECT_FALSE(sigismember(&pending, SIGUSR1));
  }));
  const sigset_t set = SignalSet({SIGUSR1});
  EXPECT_EQ(sigwaitinfo(&set, nullptr), SIGUSR1);
}
TEST(Fork, MaskAndActionsAreInherited) {
  const ScopedBlock block({SIGUSR2});
  const ScopedAction action(SIGUSR1, SIG_IGN);
  EXPECT_TRUE(PassesInChild([] {
    sigset_t mask;
    ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
    EXPECT_TRUE(sigismember(&mask, SIGUSR2));
    struct sigaction now;
    ASSERT_OK(sigaction(SIGUSR1, nullptr, &now));
    EXPECT_EQ(now.sa_handler, SIG_IGN);
  }));
}
TEST(Fork, AlarmIsNotInherited) {
  alarm(100);
  EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(alarm(0), 0u); }));
  EXPECT_GT(alarm(0), 90u);
}
TEST(Fork, CpuTimeStartsAtZero) {
  const auto used = [] {
    rusage usage{};
    EXPECT_OK(getrusage(RUSAGE_SELF, &usage));
    return usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec;
  };
  // Far more than a child that waits for a CPU can have been charged with.
  while (used() < 300'000) {
    for (volatile unsigned i = 0; i < 1'000'000; i = i + 1) {
    }
  }
  EXPECT_TRUE(PassesInChild([&] { EXPECT_LT(used(), 150'000); }));
}
TEST(Fork, ManyChildren) {
  std::vector<pid_t> pids;
  for (int i = 0; i < 50; ++i) pids.push_back(Spawn([i] { _exit(i); }));
  for (int i = 0; i < 50; ++i) {
    const int status = WaitStatus(pids[i]);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), i);
  }
}
TEST(Fork, ProcessLimit) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit limit = {1, 1};
    ASSERT_OK(setrlimit(RLIMIT_NPROC, &limit));
    BecomeUser(12345);
    EXPECT_FAIL(fork(), EAGAIN);
  }));
}
TEST(Fork, ForkFromAThread) {
  std::atomic<int> status = -1;
  std::thread([&] { status = StatusOf([] { EXPECT_EQ(getpid(), gettid()); }); }).join();
  EXPECT_EQ(status, 0);
}

TEST(Vfork, ParentWaitsForExit) {
  volatile int value = 0;
  const pid_t pid = vfork();
  if (pid == 0) {
    value = 1;  // vfork shares memory
    _exit(3);
  }
  EXPECT_EQ(value, 1);
  EXPECT_EQ(WEXITSTATUS(WaitStatus(pid)), 3);
}
TEST(Vfork, ParentWaitsForExec) {
  const std::string self = SelfPath();
  const char* const argv[] = {self.c_str(), "--role=slow_exit", nullptr};
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  const pid_t pid = vfork();
  if (pid == 0) {
    execv(argv[0], const_cast<char* const*>(argv));
    _exit(1);
  }
  clock_gettime(CLOCK_MONOTONIC, &now);
  int status;
  EXPECT_EQ(waitpid(pid, &status, WNOHANG), 0);  // it runs on after the exec
  EXPECT_EQ(WEXITSTATUS(WaitStatus(pid)), 4);
}
MOAT_ROLE(slow_exit) {
  usleep(300'000);
  return 4;
}

// Starts a child by clone3 whose flags are `flags`; it runs `body` and exits 0. Memory is not shared.
pid_t CloneWith(uint64_t flags, const std::function<void()>& body, clone_args extra = {}) {
  extra.flags = flags;
  extra.exit_signal = SIGCHLD;
  const pid_t pid = Clone3(&extra);
  if (pid == 0) {
    body();
    fflush(stdout);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  return pid;
}

TEST(Clone, FilesShared) {
  int made = 700;
  const ScopedFd null(open("/dev/null", O_RDONLY));
  const pid_t pid = CloneWith(CLONE_FILES, [&] { dup2(null.get(), 700); });
  ASSERT_OK(pid);
  EXPECT_EQ(WaitStatus(pid), 0);
  EXPECT_OK(fcntl(made, F_GETFD));
  close(made);
}
TEST(Clone, FsShared) {
  char before[4096];
  ASSERT_NE(getcwd(before, sizeof before), nullptr);
  const mode_t mask = umask(022);
  const pid_t pid = CloneWith(CLONE_FS, [] {
    EXPECT_OK(chdir("/proc"));
    umask(0137);
  });
  EXPECT_EQ(WaitStatus(pid), 0);
  char after[4096];
  ASSERT_NE(getcwd(after, sizeof after), nullptr);
  EXPECT_STREQ(after, "/proc");
  EXPECT_EQ(umask(mask), 0137u);
  ASSERT_OK(chdir(before));
}
TEST(Clone, ParentSettidAndPidfd) {
  int tid = 0, pidfd = -1;
  clone_args args = {};
  args.parent_tid = reinterpret_cast<uintptr_t>(&tid);
  args.pidfd = reinterpret_cast<uintptr_t>(&pidfd);
  const pid_t pid = CloneWith(
      CLONE_PARENT_SETTID | CLONE_PIDFD, [] {}, args);
  ASSERT_OK(pid);
  EXPECT_EQ(tid, pid);
  EXPECT_EQ(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(ProcField("/proc/self/fdinfo/" + std::to_string(pidfd), "Pid"), std::to_string(pid));
  EXPECT_EQ(WaitStatus(pid), 0);
  close(pidfd);
}
TEST(Clone, ChildSettid) {
  int tid = 0;
  clone_args args = {};
  args.child_tid = reinterpret_cast<uintptr_t>(&tid);
  const pid_t pid = CloneWith(
      CLONE_CHILD_SETTID, [&] { EXPECT_EQ(tid, getpid()); }, args);
  EXPECT_EQ(WaitStatus(pid), 0);
  EXPECT_EQ(tid, 0);
}
TEST(Clone, CloneParentMakesASibling) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const pid_t parent = getpid();
  EXPECT_TRUE(PassesInChild([&] {
    clone_args args = {};
    args.flags = CLONE_PARENT;
    const pid_t pid = Clone3(&args);
    if (pid == 0) {
      EXPECT_EQ(getppid(), parent);
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    write(w.get(), &pid, sizeof pid);
  }));
  pid_t sibling;
  ASSERT_EQ(read(r.get(), &sibling, sizeof sibling), static_cast<ssize_t>(sizeof sibling));
  EXPECT_EQ(WaitStatus(sibling), 0);
}
TEST(Clone, ClearSighand) {
  const ScopedAction action(SIGUSR1, [](int) {}), ignored(SIGUSR2, SIG_IGN);
  const pid_t pid = CloneWith(CLONE_CLEAR_SIGHAND, [] {
    struct sigaction now;
    ASSERT_OK(sigaction(SIGUSR1, nullptr, &now));
    EXPECT_EQ(now.sa_handler, SIG_DFL);
    ASSERT_OK(sigaction(SIGUSR2, nullptr, &now));
    EXPECT_EQ(now.sa_handler, SIG_IGN);
  });
  EXPECT_EQ(WaitStatus(pid), 0);
}
TEST(Clone, NoExitSignalNeedsWclone) {
  clone_args args = {};
  const pid_t pid = Clone3(&args);
  if (pid == 0) _exit(6);
  ASSERT_OK(pid);
  int status;
  EXPECT_FAIL(waitpid(pid, &status, 0), ECHILD);
  EXPECT_EQ(waitpid(pid, &status, __WCLONE), pid);
  EXPECT_EQ(WEXITSTATUS(status), 6);
}
TEST(Clone, OtherExitSignal) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  clone_args args = {};
  args.exit_signal = SIGUSR1;
  const pid_t pid = Clone3(&args);
  if (pid == 0) _exit(0);
  EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
  EXPECT_EQ(waitpid(pid, nullptr, __WALL), pid);
}
TEST(Clone, SetTid) {
  EXPECT_TRUE(PassesInChild([] {
    pid_t wanted = 3'000;
    while (kill(wanted, 0) == 0) ++wanted;
    clone_args args = {};
    args.set_tid = reinterpret_cast<uintptr_t>(&wanted);
    args.set_tid_size = 1;
    const pid_t pid = CloneWith(
        0, [&] { EXPECT_EQ(getpid(), wanted); }, args);
    EXPECT_EQ(pid, wanted) << ErrnoName(errno);
    if (pid > 0) {
      EXPECT_EQ(WaitStatus(pid), 0);
    }
  }));
}

struct CloneError {
  const char* name;
  uint64_t flags;
  uint64_t exit_signal;
};
class CloneFails : public testing::TestWithParam<CloneError> {};
TEST_P(CloneFails, WithEinval) {
  clone_args args = {};
  args.flags = GetParam().flags;
  args.exit_signal = GetParam().exit_signal;
  const pid_t pid = Clone3(&args);
  if (pid == 0) _exit(0);
  EXPECT_FAIL(pid, EINVAL);
}
INSTANTIATE_TEST_SUITE_P(
    , CloneFails,
    testing::Values(CloneError{"ThreadWithoutSighand", CLONE_THREAD, 0},
                    CloneError{"SighandWithoutVm", CLONE_SIGHAND, SIGCHLD},
                    CloneError{"FsAndNewns", CLONE_FS | CLONE_NEWNS, SIGCHLD},
                    CloneError{"ThreadAndNewpid", CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWPID, 0},
                    CloneError{"ClearAndShareSighand", CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM, SIGCHLD},
                    CloneError{"ThreadWithExitSignal", CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, SIGCHLD},
                    CloneError{"UnknownFlag", 1ull << 50, SIGCHLD}, CloneError{"Detached", CLONE_DETACHED, SIGCHLD},
                    CloneError{"BadSignal", 0, 100}, CloneError{"SignalInFlags", SIGCHLD, 0}),
    [](const auto& info) { return info.param.name; });
TEST(Clone, StructSizes) {
  struct {
    clone_args args = {};
    uint64_t more = 1;
  } big;
  EXPECT_FAIL(Clone3(&big.args, 32), EINVAL);
  EXPECT_FAIL(Clone3(&big.args, sizeof big), E2BIG);
  EXPECT_FAIL(Clone3(reinterpret_cast<clone_args*>(BadPointer())), EFAULT);
}

TEST(Exit, CodeIsEightBits) {
  EXPECT_EQ(WEXITSTATUS(StatusOf([] { _exit(0x1234); })), 0x34);
  EXPECT_EQ(WEXITSTATUS(StatusOf([] { _exit(-1); })), 255);
}
TEST(Exit, GroupStatusOutlivesAThreadThatIsEnding) {
  for (int round = 0; round < 200; ++round) {
    ASSERT_EQ(StatusOf([&] {
                std::atomic<bool> go{false};
                for (int i = 0; i < 3; ++i) {
                  std::thread([&] {
                    while (!go) {
                    }
                    syscall(SYS_exit, 0);
                  }).detach();
                }
                go = true;
                for (volatile int i = 0; i < round % 20 * 5000; i = i + 1) {
                }
                syscall(SYS_exit_group, 3);
              }),
              3 << 8);
  }
}
TEST(Exit, ExitGroupEndsAllThreads) {
  const int status = StatusOf([] {
    std::thread([] { syscall(SYS_exit_group, 7); }).detach();
    for (;;) pause();
  });
  EXPECT_EQ(WEXITSTATUS(status), 7);
}
TEST(Exit, MainThreadExitLeavesTheOthers) {
  const int status = StatusOf([] {
    std::thread([] {
      usleep(20'000);
      syscall(SYS_exit_group, 8);
    }).detach();
    syscall(SYS_exit, 1);
  });
  EXPECT_EQ(WEXITSTATUS(status), 8);
}
TEST(Exit, LastThreadsCodeCounts) {
  const int status = StatusOf([] {
    std::thread([] {
      usleep(20'000);
      syscall(SYS_exit, 9);
    }).detach();
    syscall(SYS_exit, 5);
  });
  EXPECT_EQ(WEXITSTATUS(status), 9);
}
TEST(Exit, FatalSignalInAThreadKillsAll) {
  const int status = StatusOf([] {
    std::thread([] { tgkill(getpid(), gettid(), SIGTERM); }).detach();
    for (;;) pause();
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}
TEST(Exit, DescriptorsCloseAtExit) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  const pid_t child = Spawn([] {});
  w.Reset();
  char c;
  EXPECT_EQ(read(r.get(), &c, 1), 0);
  EXPECT_EQ(WaitStatus(child), 0);
}
// Who has waited for a process finds nothing in use by it any more.
TEST(Exit, MappingsAreGoneWhenTheParentKnows) {
  const int id = shmget(IPC_PRIVATE, 16 * kPage, IPC_CREAT | 0600);
  ASSERT_OK(id);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(StatusOf([&] { memset(shmat(id, nullptr, 0), 1, 16 * kPage); }), 0);
    shmid_ds state;
    ASSERT_OK(shmctl(id, IPC_STAT, &state));
    ASSERT_EQ(state.shm_nattch, 0u) << i;
  }
  EXPECT_OK(shmctl(id, IPC_RMID, nullptr));
}
TEST(Exit, FilesystemIsNotBusyWhenTheParentKnows) {
  const TempDir dir;
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    for (int i = 0; i < 100; ++i) {
      ASSERT_OK(mount("none", dir.path().c_str(), "tmpfs", 0, nullptr));
      const std::string path = dir.path() + "/file";
      {
        const ScopedFd fd(open(path.c_str(), O_CREAT | O_RDWR, 0600));
        ASSERT_OK(ftruncate(fd.get(), 16 * kPage));
      }
      ASSERT_EQ(StatusOf([&] {
                  const int fd = open(path.c_str(), O_RDWR);
                  memset(mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), 1, 16 * kPage);
                }),
                0);
      ASSERT_OK(umount(dir.path().c_str())) << i;
    }
  }));
}
TEST(Exit, ProgramMayBeWrittenWhenTheParentKnows) {
  const TempDir dir;
  const std::string path = dir.path() + "/program";
  ASSERT_EQ(StatusOf([&] { execl("/bin/cp", "cp", "/bin/true", path.c_str(), nullptr); }), 0);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(StatusOf([&] { execl(path.c_str(), "true", nullptr); }), 0);
    const ScopedFd fd(open(path.c_str(), O_RDWR));
    ASSERT_OK(fd.get()) << i;
  }
}
TEST(Exit, ClearChildTid) {
  const Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  int* word = shared.as<int>();
  *word = 55;
  const pid_t child = Spawn([&] {
    syscall(SYS_set_tid_address, word);
    // Only cleared while another task shares the memory: a thread of this child does.
    std::thread([] { usleep(30'000); }).detach();
    syscall(SYS_exit, 0);
  });
  WaitStatus(child);
  EXPECT_EQ(*word, 0);
}
TEST(Exit, ParentDeathSignal) {
  const Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  volatile pid_t* grandchild = shared.as<pid_t>();
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  WaitStatus(Spawn([&] {
    int ready[2];
    ASSERT_OK(pipe(ready));
    *grandchild = fork();
    if (*grandchild == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      write(ready[1], "x", 1);
      for (;;) pause();
    }
    char c;
    read(ready[0], &c, 1);
  }));
  w.Reset();
  char c;
  EXPECT_EQ(read(r.get(), &c, 1), 0);  // the grandchild held the last writer
}
TEST(Exit, OrphanGoesToTheSubreaper) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    const pid_t reaper = getpid();
    int p[2];
    ASSERT_OK(pipe(p));
    const pid_t middle = fork();
    if (middle == 0) {
      const pid_t orphan = fork();
      if (orphan == 0) {
        Eventually([&] { return getppid() == reaper; });
        const pid_t now = getppid();
        write(p[1], &now, sizeof now);
        _exit(3);
      }
      _exit(0);
    }
    EXPECT_EQ(WaitStatus(middle), 0);
    pid_t seen = 0;
    EXPECT_EQ(read(p[0], &seen, sizeof seen), static_cast<ssize_t>(sizeof seen));
    EXPECT_EQ(seen, getpid());
    int status;
    EXPECT_GT(wait(&status), 0);
    EXPECT_EQ(WEXITSTATUS(status), 3);
  }));
}

}  // namespace
}  // namespace moat::guest
