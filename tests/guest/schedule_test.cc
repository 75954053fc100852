// Scheduling calls: affinity, policies, priorities.
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/guest/support/child.h"

namespace moat::guest {
namespace {

TEST(Sched, AffinityRoundTrip) {
  EXPECT_TRUE(PassesInChild([] {
    cpu_set_t set;
    ASSERT_OK(sched_getaffinity(0, sizeof set, &set));
    ASSERT_GE(CPU_COUNT(&set), 1);
    int first = 0;
    while (!CPU_ISSET(first, &set)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_OK(sched_setaffinity(0, sizeof one, &one));
    ASSERT_OK(sched_getaffinity(0, sizeof set, &set));
    EXPECT_EQ(CPU_COUNT(&set), 1);
    EXPECT_EQ(sched_getcpu(), first);
  }));
}
// By the vDSO or rseq, and by the call.
void ExpectOnCpu(int cpu) {
  EXPECT_EQ(sched_getcpu(), cpu);
  unsigned called = ~0u;
  EXPECT_OK(syscall(SYS_getcpu, &called, nullptr, nullptr));
  EXPECT_EQ(called, static_cast<unsigned>(cpu));
}
cpu_set_t Only(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return set;
}
TEST(Sched, AffinityMovesTheThread) {
  cpu_set_t all;
  ASSERT_OK(sched_getaffinity(0, sizeof all, &all));
  std::thread([&] {
    for (int round = 0; round < 20; ++round) {
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &all)) continue;
        const cpu_set_t one = Only(cpu);
        ASSERT_OK(sched_setaffinity(0, sizeof one, &one));
        ExpectOnCpu(cpu);
        usleep(1000);
        ExpectOnCpu(cpu);
      }
    }
  }).join();
}
TEST(Sched, AffinityOfAnotherThreadWhileItRuns) {
  cpu_set_t all;
  ASSERT_OK(sched_getaffinity(0, sizeof all, &all));
  std::atomic<int> tid{0}, wanted{-1};
  std::thread busy([&] {
    tid = gettid();
    while (wanted != -2) {
      const int cpu = wanted;
      if (cpu < 0) continue;
      EXPECT_TRUE(Eventually([&] { return sched_getcpu() == cpu; }));
      wanted = -1;
    }
  });
  while (tid == 0) usleep(100);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    const cpu_set_t one = Only(cpu);
    ASSERT_OK(sched_setaffinity(tid, sizeof one, &one));
    cpu_set_t got;
    ASSERT_OK(sched_getaffinity(tid, sizeof got, &got));
    EXPECT_TRUE(CPU_EQUAL(&got, &one));
    wanted = cpu;
    EXPECT_TRUE(Eventually([&] { return wanted == -1; }));
  }
  wanted = -2;
  busy.join();
}
TEST(Sched, AffinityIsInheritedAndKept) {
  cpu_set_t all;
  ASSERT_OK(sched_getaffinity(0, sizeof all, &all));
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(last, &all)) --last;
  EXPECT_TRUE(PassesInChild([&] {
    const cpu_set_t one = Only(last);
    ASSERT_OK(sched_setaffinity(0, sizeof one, &one));
    std::thread([&] { ExpectOnCpu(last); }).join();
    EXPECT_TRUE(PassesInChild([&] { ExpectOnCpu(last); }));
    const pid_t child = fork();
    if (child == 0) {
      ExecRole("on_cpu", {std::to_string(last)});
      _exit(126);
    }
    EXPECT_EQ(WaitStatus(child), 0);
  }));
}
MOAT_ROLE(on_cpu) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) != 1) return 1;
  return sched_getcpu() == atoi(argv[1]) ? 0 : 2;
}
TEST(Sched, AffinityErrors) {
  cpu_set_t none;
  CPU_ZERO(&none);
  EXPECT_FAIL(sched_setaffinity(0, sizeof none, &none), EINVAL);
  EXPECT_FAIL(sched_getaffinity(999'999, sizeof none, &none), ESRCH);
  EXPECT_FAIL(sched_getaffinity(-1, sizeof none, &none), ESRCH);
  EXPECT_FAIL(sched_setaffinity(-1, sizeof none, &none), ESRCH);
  EXPECT_FAIL(syscall(SYS_sched_getaffinity, 0, size_t{1}, &none), EINVAL);
}
TEST(Sched, PolicyAndParam) {
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
  sched_param param = {5};
  ASSERT_OK(sched_getparam(0, &param));
  EXPECT_EQ(param.sched_priority, 0);
  param.sched_priority = 5;
  EXPECT_FAIL(sched_setscheduler(0, SCHED_OTHER, &param), EINVAL);
  EXPECT_FAIL(sched_setscheduler(0, 77, &param), EINVAL);
  EXPECT_FAIL(sched_getscheduler(-1), EINVAL);
}
TEST(Sched, BatchAndIdle) {
  EXPECT_TRUE(PassesInChild([] {
    const sched_param param = {};
    ASSERT_OK(sched_setscheduler(0, SCHED_BATCH, &param));
    EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
    ASSERT_OK(sched_setscheduler(0, SCHED_IDLE, &param));
    EXPECT_EQ(sched_getscheduler(0), SCHED_IDLE);
  }));
}
TEST(Sched, PriorityRanges) {
  EXPECT_EQ(sched_get_priority_min(SCHED_FIFO), 1);
  EXPECT_EQ(sched_get_priority_max(SCHED_RR), 99);
  EXPECT_EQ(sched_get_priority_max(SCHED_OTHER), 0);
  EXPECT_FAIL(sched_get_priority_max(99), EINVAL);
}
TEST(Sched, Nice) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setpriority(PRIO_PROCESS, 0, 7));
    errno = 0;
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 7);
    EXPECT_EQ(nice(3), 10);
    ASSERT_OK(setpriority(PRIO_PROCESS, 0, 100));
    EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 19);
    BecomeUser(1000);
    EXPECT_FAIL(setpriority(PRIO_PROCESS, 0, 1), EACCES);
    EXPECT_FAIL(getpriority(PRIO_PROCESS, 999'999), ESRCH);
    EXPECT_FAIL(getpriority(static_cast<__priority_which>(9), 0), EINVAL);
  }));
}
TEST(Sched, PriorityOfNobody) {
  for (const int which : {PRIO_PROCESS, PRIO_PGRP, PRIO_USER}) {
    errno = 0;
    EXPECT_EQ(getpriority(which, -1), -1);
    EXPECT_EQ(errno, ESRCH) << which;
    EXPECT_FAIL(setpriority(which, -1, 0), ESRCH);
  }
}
TEST(Sched, YieldAndGetcpu) {
  EXPECT_OK(sched_yield());
  unsigned cpu = 9999, node = 9999;
  ASSERT_OK(getcpu(&cpu, &node));
  EXPECT_LT(cpu, 9999u);
  EXPECT_LT(node, 9999u);
}
TEST(Sched, Getattr) {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attr = {};
  ASSERT_OK(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0));
  EXPECT_EQ(attr.size, 48u);
  EXPECT_EQ(attr.policy, static_cast<uint32_t>(SCHED_OTHER));
  EXPECT_FAIL(syscall(SYS_sched_getattr, 0, &attr, 8, 0), EINVAL);
}

}  // namespace
}  // namespace moat::guest
