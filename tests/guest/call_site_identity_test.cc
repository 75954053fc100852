// Hot calls that ask who the caller is, while that changes: new processes and threads, credentials, namespaces, parents
// that die, and filters that forbid to ask.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "tests/guest/support/call_site.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

constexpr size_t kPid = 0, kTid = 1, kPpid = 2, kUid = 3, kGid = 5;

// Hot in this process, and in those that it makes.
const HotSites& Sites() {
  static const HotSites* sites = new HotSites;
  return *sites;
}
void ExpectTruth() {
  const Identity truth = TrueIdentity();
  for (int i = 0; i < kHot; ++i) ASSERT_EQ(Sites().Ask(), truth) << "round " << i;
}
class CallSiteIdentity : public testing::Test {
 protected:
  void SetUp() override { ExpectTruth(); }
};
void Write(const std::string& path, const std::string& text) {
  const ScopedFd fd(open(path.c_str(), O_WRONLY));
  ASSERT_OK(write(fd.get(), text.data(), text.size())) << path;
}
struct Pipe {
  Pipe() { EXPECT_OK(pipe(ends)); }
  ~Pipe() { close(ends[0]), close(ends[1]); }
  void Wait() const {
    char byte;
    EXPECT_EQ(read(ends[0], &byte, 1), 1);
  }
  void Tell() const { EXPECT_EQ(write(ends[1], "x", 1), 1); }
  int ends[2];
};

TEST_F(CallSiteIdentity, Fork) {
  EXPECT_TRUE(PassesInChild([] {
    ExpectTruth();
    EXPECT_TRUE(PassesInChild(ExpectTruth));
    ExpectTruth();
  }));
  ExpectTruth();
}
TEST_F(CallSiteIdentity, FirstCallOfAChild) {
  const Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  Identity* const answer = shared.as<Identity>();
  const pid_t self = static_cast<pid_t>(TrueIdentity()[kPid]);
  for (int i = 0; i < 20; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      *answer = Sites().Ask();
      _exit(0);
    }
    WaitStatus(child);
    EXPECT_EQ((*answer)[kPid], child);
    EXPECT_EQ((*answer)[kTid], child);
    EXPECT_EQ((*answer)[kPpid], self);
    EXPECT_EQ(Sites().Ask()[kPid], self);
  }
}
TEST_F(CallSiteIdentity, Vfork) {
  static volatile long pid, ppid;
  for (int i = 0; i < 10; ++i) {
    const pid_t child = vfork();
    if (child == 0) {
      for (int n = 0; n < kHot; ++n) {
        pid = Sites().Padded(kPid);
        ppid = Sites().Padded(kPpid);
      }
      _exit(0);
    }
    EXPECT_EQ(pid, child);
    EXPECT_EQ(ppid, TrueIdentity()[kPid]);
    WaitStatus(child);
    ExpectTruth();
  }
}
TEST_F(CallSiteIdentity, ProcessThatSharesMemory) {
  struct Shared {
    std::atomic<bool> stop{false};
    std::atomic<long> pid{0}, wrong{0}, rounds{0};
  };
  static Shared shared;
  const Mapping stack(64 * kPage);
  const pid_t child = clone(
      [](void*) {
        shared.pid = Sites().Padded(kPid);
        while (!shared.stop) {
          shared.wrong += Sites().Padded(kPid) != shared.pid || Sites().Padded(kTid) != shared.pid;
          ++shared.rounds;
        }
        return 0;
      },
      stack.data() + stack.size(), CLONE_VM | SIGCHLD, nullptr);
  ASSERT_OK(child);
  while (shared.rounds < 1000) ExpectTruth();
  shared.stop = true;
  WaitStatus(child);
  EXPECT_EQ(shared.pid, child);
  EXPECT_EQ(shared.wrong, 0);
}
TEST_F(CallSiteIdentity, Threads) {
  for (int i = 0; i < 4; ++i) std::thread(ExpectTruth).join();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(ExpectTruth);
  for (std::thread& t : threads) t.join();
  ExpectTruth();
}
TEST_F(CallSiteIdentity, ThreadsWhileTheSiteIsPatched) {
  // At each place in a word; the threads get to the hundredth call one by one.
  for (size_t shift = 0; shift < 8; ++shift) {
    const Code code(Bytes(shift, 0x90) + Padded(Call(SYS_gettid)));
    std::atomic<int> wrong{0}, ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        const long tid = TrueIdentity()[kTid];
        for (++ready; ready < 8;) sched_yield();
        for (int n = 0; n < kHot; ++n) wrong += code() != tid;
      });
    }
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(wrong, 0) << shift;
  }
}
MOAT_ROLE(call_sites) {
  ExpectTruth();
  return testing::Test::HasFailure() ? 1 : 0;
}
TEST_F(CallSiteIdentity, Execve) {
  EXPECT_EQ(StatusOf([] { ExecRole("call_sites"); }), 0);
  EXPECT_EQ(StatusOf([] { std::thread([] { ExecRole("call_sites"); }).join(); }), 0);
}

TEST_F(CallSiteIdentity, UserAndGroup) {
  EXPECT_TRUE(PassesInChild([] {
    ExpectTruth();
    ASSERT_OK(setgid(31));
    EXPECT_EQ(Sites().Ask()[kGid], 31);
    EXPECT_EQ(Sites().Ask()[kGid + 1], 31);
    ASSERT_OK(setresgid(32, 33, 34));
    EXPECT_EQ(Sites().Ask()[kGid], 32);
    EXPECT_EQ(Sites().Ask()[kGid + 1], 33);
    ExpectTruth();
    for (uid_t i = 1; i < 50; ++i) {
      ASSERT_OK(setresuid(i, i + 100, 0));
      ASSERT_EQ(Sites().Padded(kUid), static_cast<long>(i));
      ASSERT_EQ(Sites().Padded(kUid + 1), static_cast<long>(i + 100));
      ASSERT_OK(seteuid(0));
      ASSERT_EQ(Sites().Padded(kUid + 1), 0);
    }
    ASSERT_OK(setuid(1000));
    EXPECT_EQ(Sites().Ask()[kUid], 1000);
    ExpectTruth();
  }));
  ExpectTruth();
}
TEST_F(CallSiteIdentity, UserOfOneThread) {
  EXPECT_TRUE(PassesInChild([] {
    std::thread([] {
      ExpectTruth();
      ASSERT_OK(syscall(SYS_setresuid, 41, 42, 43));
      EXPECT_EQ(Sites().Ask()[kUid], 41);
      ExpectTruth();
    }).join();
    EXPECT_EQ(Sites().Ask()[kUid], 0);
    ExpectTruth();
  }));
}
TEST_F(CallSiteIdentity, UserOfAllThreadsByTheLibrary) {
  EXPECT_TRUE(PassesInChild([] {
    std::atomic<bool> changed{false}, hot{false};
    std::thread other([&] {
      ExpectTruth();
      hot = true;
      while (!changed) (void)Sites().Padded(kUid);
      EXPECT_EQ(Sites().Padded(kUid), 51);
      ExpectTruth();
    });
    while (!hot) sched_yield();
    EXPECT_OK(setuid(51));
    changed = true;
    other.join();
    ExpectTruth();
  }));
}
TEST_F(CallSiteIdentity, UserNamespace) {
  const Pipe unshared, mapped;
  const pid_t child = Spawn([&] {
    ExpectTruth();
    ASSERT_OK(unshare(CLONE_NEWUSER));
    Heat([] { EXPECT_EQ(Sites().Padded(kUid), 65534); });
    EXPECT_EQ(Sites().Padded(kGid), 65534);
    unshared.Tell();
    mapped.Wait();
    EXPECT_EQ(Sites().Padded(kUid), 5);
    EXPECT_EQ(Sites().Padded(kGid), 65534);
    Heat([] { (void)Sites().Ask(); });
    unshared.Tell();
    mapped.Wait();
    EXPECT_EQ(Sites().Padded(kUid), 5);
    EXPECT_EQ(Sites().Padded(kGid), 6);
    ExpectTruth();
  });
  unshared.Wait();
  const std::string proc = "/proc/" + std::to_string(child);
  Write(proc + "/uid_map", "5 0 1");
  mapped.Tell();
  unshared.Wait();
  Write(proc + "/gid_map", "6 0 1");
  mapped.Tell();
  EXPECT_EQ(WaitStatus(child), 0);
  ExpectTruth();
}
TEST_F(CallSiteIdentity, PidNamespace) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(unshare(CLONE_NEWPID));
    ExpectTruth();
    EXPECT_TRUE(PassesInChild([] {
      Heat([] { ASSERT_EQ(Sites().Ask()[kPid], 1); });
      EXPECT_EQ(Sites().Ask()[kTid], 1);
      EXPECT_EQ(Sites().Ask()[kPpid], 0);
      EXPECT_TRUE(PassesInChild([] {
        Heat([] { ASSERT_EQ(Sites().Ask()[kPid], 2); });
        EXPECT_EQ(Sites().Ask()[kPpid], 1);
      }));
    }));
  }));
}
// A grandchild whose parent ends, of which `signal` tells it (0: nothing). `lost` runs in it while the parent may live.
void Orphan(int signal, const std::function<void(long parent)>& lost) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    const Pipe ready;
    const pid_t middle = Spawn([&] {
      const pid_t self = static_cast<pid_t>(TrueIdentity()[kPid]);
      Spawn([&] {
        const ScopedBlock block({SIGUSR1});
        ASSERT_OK(prctl(PR_SET_PDEATHSIG, signal));
        ExpectTruth();
        EXPECT_EQ(Sites().Ask()[kPpid], self);
        ready.Tell();
        lost(self);
        ExpectTruth();
      });
      ready.Wait();
    });
    EXPECT_EQ(WaitStatus(middle), 0);
    int status;
    ASSERT_OK(wait(&status));
    EXPECT_EQ(status, 0);
  }));
}
TEST_F(CallSiteIdentity, ParentAfterItsDeath) {
  Orphan(SIGUSR1, [](long parent) {
    int signal;
    const sigset_t set = SignalSet({SIGUSR1});
    EXPECT_EQ(sigwait(&set, &signal), 0);
    EXPECT_NE(Sites().Padded(kPpid), parent);
  });
}
TEST_F(CallSiteIdentity, ParentWhileNothingElseIsAsked) {
  Orphan(0, [](long parent) {
    long rounds = 0;
    while (Sites().Padded(kPpid) == parent && rounds < 200'000'000) ++rounds;
    EXPECT_NE(Sites().Padded(kPpid), parent);
  });
}

void ForbidGetpid(int error, unsigned flags) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, code};
  ASSERT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  ASSERT_OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}
TEST_F(CallSiteIdentity, FilterSeesTheCall) {
  EXPECT_TRUE(PassesInChild([] {
    ExpectTruth();
    ForbidGetpid(EXDEV, 0);
    Heat([] { EXPECT_EQ(Sites().Padded(kPid), -EXDEV); });
    EXPECT_EQ(Sites().Dense()[kPid], -EXDEV);
    EXPECT_EQ(Sites().Padded(kUid), 0);
    EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(Sites().Padded(kPid), -EXDEV); }));
    std::thread([] { Heat([] { EXPECT_EQ(Sites().Padded(kPid), -EXDEV); }); }).join();
  }));
}
TEST_F(CallSiteIdentity, FilterOfAnotherThread) {
  EXPECT_TRUE(PassesInChild([] {
    std::atomic<bool> hot{false}, forbidden{false};
    std::thread other([&] {
      ExpectTruth();
      hot = true;
      while (!forbidden) (void)Sites().Padded(kPid);
      Heat([] { EXPECT_EQ(Sites().Padded(kPid), -EXDEV); });
    });
    while (!hot) sched_yield();
    ForbidGetpid(EXDEV, SECCOMP_FILTER_FLAG_TSYNC);
    forbidden = true;
    other.join();
  }));
}
TEST_F(CallSiteIdentity, StrictModeKills) {
  const int status = StatusOf([] {
    ExpectTruth();
    ASSERT_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    (void)Sites().Padded(kPid);
    syscall(SYS_exit, 0);
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

}  // namespace
}  // namespace moat::guest
