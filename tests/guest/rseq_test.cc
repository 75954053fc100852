// Restartable sequences: rseq(2). The C library registers every thread; the tests use its area.
#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

constexpr uint32_t kSignature = 0x53053053;

int Rseq(void* area, uint32_t length, int flags, uint32_t signature) {
  return static_cast<int>(syscall(SYS_rseq, area, length, flags, signature));
}
struct rseq* Own() {
  return reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
}
uint32_t OwnCpu() { return *static_cast<volatile uint32_t*>(&Own()->cpu_id); }

// The start of a critical section that begins at 2: and commits before 3:, with its way out at 4:, behind the
// signature. Clobbers rax.
#define SECTION(area)                                                                                      \
  ".pushsection .data.rel.ro, \"aw\"\n .balign 32\n 1: .long 0, 0\n .quad 2f, 3f - 2f, 4f\n .popsection\n" \
  "leaq 1b(%%rip), %%rax\n movq %%rax, " area "\n"
#define WAY_OUT "jmp 5f\n .byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n 4:\n"

TEST(Rseq, RegisteredByTheLibraryOrByUs) {
  std::thread([] {
    alignas(32) static struct rseq area;
    if (__rseq_size > 0) {
      const int cpu = sched_getcpu();
      EXPECT_GE(cpu, 0);
      EXPECT_LT(OwnCpu(), 4096u);
      EXPECT_FAIL(Rseq(&area, sizeof area, 0, kSignature), EINVAL);  // one area a thread
    } else {
      EXPECT_OK(Rseq(&area, sizeof area, 0, kSignature));
    }
  }).join();
}
TEST(Rseq, UnregisterAndRegister) {
  EXPECT_TRUE(PassesInChild([] {
    struct rseq* area = Own();
    ASSERT_GT(__rseq_size, 0u);
    EXPECT_FAIL(Rseq(area, 32, RSEQ_FLAG_UNREGISTER, 0x1111), EPERM);
    EXPECT_FAIL(Rseq(area, 64, RSEQ_FLAG_UNREGISTER, kSignature), EINVAL);
    ASSERT_OK(Rseq(area, 32, RSEQ_FLAG_UNREGISTER, kSignature));
    EXPECT_EQ(area->cpu_id, static_cast<uint32_t>(RSEQ_CPU_ID_UNINITIALIZED));
    EXPECT_EQ(area->cpu_id_start, 0u);
    EXPECT_FAIL(Rseq(area, 32, RSEQ_FLAG_UNREGISTER, kSignature), EINVAL);
    EXPECT_FAIL(Rseq(reinterpret_cast<char*>(area) + 1, 32, 0, 1), EINVAL);
    EXPECT_FAIL(Rseq(area, 16, 0, 1), EINVAL);
    EXPECT_FAIL(Rseq(area, 32, 8, 1), EINVAL);
    ASSERT_OK(Rseq(area, 32, 0, 0x2222));
    EXPECT_LT(OwnCpu(), 4096u);
    EXPECT_FAIL(Rseq(area, 32, 0, 0x2222), EBUSY);
    EXPECT_FAIL(Rseq(area, 32, 0, 0x2223), EPERM);
  }));
}
TEST(Rseq, AreaMustBeWritable) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(Rseq(Own(), 32, RSEQ_FLAG_UNREGISTER, kSignature));
    EXPECT_FAIL(Rseq(nullptr, 32, 0, kSignature), EFAULT);
    EXPECT_FAIL(Rseq(reinterpret_cast<void*>(uintptr_t{1} << 63), 32, 0, kSignature), EFAULT);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_OK(Rseq(page, 32, 0, kSignature));
  }));
  const int status = StatusOf([] {
    ASSERT_OK(Rseq(Own(), 32, RSEQ_FLAG_UNREGISTER, kSignature));
    Rseq(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 32, 0, kSignature);
    for (int i = 0; i < 2000; ++i) usleep(1000);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}
TEST(Rseq, KnowsTheCpu) {
  cpu_set_t all;
  ASSERT_OK(sched_getaffinity(0, sizeof all, &all));
  std::thread([&] {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &all)) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      ASSERT_OK(sched_setaffinity(0, sizeof one, &one));
      EXPECT_EQ(OwnCpu(), static_cast<uint32_t>(cpu));
      EXPECT_EQ(Own()->cpu_id_start, static_cast<uint32_t>(cpu));
    }
  }).join();
}
TEST(Rseq, ForkKeepsTheRegistration) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_TRUE(PassesInChild([] {
      EXPECT_LT(OwnCpu(), 4096u);
      EXPECT_FAIL(Rseq(Own(), 32, 0, kSignature), EBUSY);
      EXPECT_OK(Rseq(Own(), 32, RSEQ_FLAG_UNREGISTER, kSignature));
    }));
    // The parent's goes on.
    EXPECT_LT(OwnCpu(), 4096u);
    EXPECT_FAIL(Rseq(Own(), 32, 0, kSignature), EBUSY);
  }));
}
TEST(Rseq, SharedMemoryStartsWithout) {
  const pid_t child = vfork();
  if (child == 0) {
    alignas(32) static struct rseq area;
    if (Rseq(Own(), 32, RSEQ_FLAG_UNREGISTER, kSignature) != -1) _exit(1);
    _exit(Rseq(&area, 32, 0, 0x1234) == 0 && area.cpu_id < 4096 ? 0 : 2);
  }
  EXPECT_EQ(WaitStatus(child), 0);
  EXPECT_LT(OwnCpu(), 4096u);
}
TEST(Rseq, ManyThreadsComeAndGo) {
  for (int i = 0; i < 100; ++i) {
    std::vector<std::thread> threads;
    for (int k = 0; k < 4; ++k) threads.emplace_back([] { EXPECT_LT(OwnCpu(), 4096u); });
    for (auto& t : threads) t.join();
  }
}
TEST(Rseq, MemoryCallsOfRegisteredThreads) {
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) {
        auto* p = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(p, MAP_FAILED);
        p[0] = p[4096] = 1;
        ASSERT_OK(mprotect(p, 4096, PROT_READ));
        ASSERT_OK(munmap(p, 8192));
      }
      EXPECT_LT(OwnCpu(), 4096u);
    });
  }
  for (auto& t : threads) t.join();
}

TEST(Rseq, SignalAbortsTheCriticalSection) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_GT(__rseq_size, 0u);
    signal(SIGALRM, [](int) {});
    const itimerval soon = {{0, 0}, {0, 20'000}};
    ASSERT_OK(setitimer(ITIMER_REAL, &soon, nullptr));
    int aborted = 0;
    // An endless loop as critical section: only an abort leaves it.
    asm volatile(SECTION("%1") "2: pause\n jmp 2b\n 3:\n" WAY_OUT "movl $1, %0\n 5:\n"
                 : "+m"(aborted), "=m"(Own()->rseq_cs)
                 :
                 : "rax", "memory");
    EXPECT_EQ(aborted, 1);
  }));
}
extern "C" char rseq_test_way_out[];
TEST(Rseq, HandlerReturnsToTheWayOut) {
  EXPECT_TRUE(PassesInChild([] {
    static volatile uintptr_t interrupted = 0;
    const ScopedAction action(SIGALRM, [](int, siginfo_t*, void* uc) {
      interrupted = static_cast<uintptr_t>(static_cast<ucontext_t*>(uc)->uc_mcontext.gregs[REG_RIP]);
    });
    const itimerval soon = {{0, 0}, {0, 20'000}};
    ASSERT_OK(setitimer(ITIMER_REAL, &soon, nullptr));
    // An abort by preemption begins anew, until the signal comes.
    asm volatile("6:\n" SECTION("%0") "2: cmpq $0, %1\n jne 3f\n pause\n jmp 2b\n 3:\n" WAY_OUT
                                      ".globl rseq_test_way_out\n rseq_test_way_out:\n cmpq $0, %1\n je 6b\n 5:\n"
                 : "=m"(Own()->rseq_cs)
                 : "m"(interrupted)
                 : "rax", "memory", "cc");
    EXPECT_EQ(interrupted, reinterpret_cast<uintptr_t>(rseq_test_way_out));
    EXPECT_EQ(Own()->rseq_cs, 0u);
  }));
}
// A store that faults inside of a section: the section may begin anew, but must come to its end.
TEST(Rseq, SectionThatTouchesFreshMemory) {
  constexpr size_t kPages = 64;
  const Mapping memory(kPages * 4096);
  volatile long* words = memory.as<volatile long>();
  for (size_t i = 0; i < kPages; ++i) words[i * 512] = 1;
  EXPECT_TRUE(PassesInChild([&] {
    for (size_t i = 0; i < kPages; ++i) {
      asm volatile("6:\n" SECTION("%0") "2: movq (%1), %%rcx\n incq %%rcx\n movq %%rcx, (%1)\n 3:\n" WAY_OUT
                                        "jmp 6b\n 5:\n"
                   : "=m"(Own()->rseq_cs)
                   : "r"(&words[i * 512])
                   : "rax", "rcx", "memory", "cc");
      ASSERT_EQ(words[i * 512], 2);
    }
  }));
  EXPECT_EQ(words[0], 1);
}

// More threads than CPUs add to one counter per CPU, with plain loads and stores: an addition that was preempted in
// the middle and not aborted would be lost, or lose others.
TEST(Rseq, CountersPerCpu) {
  constexpr int kThreads = 6, kRounds = 30'000;
  struct alignas(64) Counter {
    volatile long value;
  };
  static Counter counters[CPU_SETSIZE];
  memset(counters, 0, sizeof counters);
  std::atomic<long> aborts{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < kThreads; ++k) {
    threads.emplace_back([&] {
      struct rseq* area = Own();
      long aborted = 0;
      for (int i = 0; i < kRounds; ++i) {
        asm volatile("6:\n" SECTION("%0")
                     "2: movl %2, %%eax\n shlq $6, %%rax\n addq %3, %%rax\n movq (%%rax), %%rcx\n"
                     "movl $60, %%edx\n 7: decl %%edx\n jnz 7b\n incq %%rcx\n movq %%rcx, (%%rax)\n 3:\n" WAY_OUT
                     "incq %1\n jmp 6b\n 5:\n"
                     : "=m"(area->rseq_cs), "+m"(aborted)
                     : "m"(area->cpu_id), "r"(&counters[0])
                     : "rax", "rcx", "rdx", "memory", "cc");
      }
      aborts += aborted;
    });
  }
  for (auto& t : threads) t.join();
  long sum = 0;
  for (const Counter& c : counters) sum += c.value;
  EXPECT_EQ(sum, long{kThreads} * kRounds);
  RecordProperty("aborts", static_cast<int>(aborts));
}
TEST(Rseq, MembarrierAborts) {
  if (!(Membarrier(MEMBARRIER_CMD_QUERY) & MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ)) GTEST_SKIP();
  ASSERT_OK(Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ));
  // Each word has one writer: the thread says where it is, this one when to leave.
  static volatile int inside, aborts, leave;
  inside = aborts = leave = 0;
  std::thread waiting([] {
    asm volatile("6:\n" SECTION("%0") "2: movl $1, %1\n 7: cmpl $0, %3\n jne 3f\n pause\n jmp 7b\n 3:\n" WAY_OUT
                                      "incl %2\n cmpl $0, %3\n je 6b\n 5:\n"
                 : "=m"(Own()->rseq_cs), "+m"(inside), "+m"(aborts)
                 : "m"(leave)
                 : "rax", "memory", "cc");
  });
  while (inside == 0) usleep(100);
  const int before = aborts;
  // Whoever is inside of a section when the call begins is sent out of it; the thread may just be on its way in.
  while (aborts == before) {
    ASSERT_OK(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ));
    usleep(100);
  }
  leave = 1;
  waiting.join();
}

TEST(Rseq, MalformedSectionIsDeadly) {
  for (const int fault : {0, 1, 2}) {
    const int status = StatusOf([fault] {
      signal(SIGSEGV, [](int) {});  // no handler helps
      alignas(32) static struct rseq_cs section = {};
      section.start_ip = 0x1000;
      section.post_commit_offset = 0x1000;
      section.abort_ip = reinterpret_cast<uintptr_t>(&section) + 64;  // without a signature before it
      if (fault == 1) section.version = 7;
      Own()->rseq_cs = fault == 2 ? 0x1000 : reinterpret_cast<uintptr_t>(&section);
      for (int i = 0; i < 2000; ++i) usleep(1000);
    });
    EXPECT_TRUE(WIFSIGNALED(status)) << fault;
    EXPECT_EQ(WTERMSIG(status), SIGSEGV) << fault;
  }
}
// A section that claims the whole address space but its own way out: whatever code the kernel has in the process to
// carry out memory calls is inside of it.
TEST(Rseq, SectionAroundEverything) {
  EXPECT_TRUE(PassesInChild([] {
    auto* code = static_cast<unsigned char*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    ASSERT_NE(code, MAP_FAILED);
    alignas(32) static struct rseq_cs section = {};
    static uintptr_t back;
    section.start_ip = reinterpret_cast<uintptr_t>(code) + 4096;
    section.post_commit_offset = 0x7fffffff0000 - section.start_ip;
    section.abort_ip = reinterpret_cast<uintptr_t>(code) + 16;
    const unsigned char way_out[] = {0x0f, 0xb9, 0x3d, 0x53, 0x30, 0x05, 0x53};  // the signature
    memcpy(code + 16 - sizeof way_out, way_out, sizeof way_out);
    const uintptr_t where = reinterpret_cast<uintptr_t>(&back);
    unsigned char jump[] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x20};  // movabs $&back, %rax; jmp *(%rax)
    memcpy(jump + 2, &where, sizeof where);
    memcpy(code + 16, jump, sizeof jump);
    for (int i = 0; i < 500; ++i) {
      // The program's own code is inside, too: it may have to go on at 8: at any time.
      long result;
      asm volatile(
          "leaq 8f(%%rip), %%rax\n movq %%rax, %2\n movq %3, %1\n"
          "movl $9, %%eax\n xorl %%edi, %%edi\n movl $4096, %%esi\n movl $3, %%edx\n movl $0x22, %%r10d\n"
          "movq $-1, %%r8\n xorl %%r9d, %%r9d\n syscall\n 8: movq $0, %1\n movq %%rax, %0\n"
          : "=m"(result), "=m"(Own()->rseq_cs), "=m"(back)
          : "r"(&section)
          : "rax", "rcx", "rdx", "rdi", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
      (void)result;  // lost when the section was aborted behind the call
    }
    // Memory calls still do what they say.
    const Mapping fresh(8192);
    memset(fresh.data(), 1, 8192);
    ASSERT_OK(mprotect(fresh.data(), 4096, PROT_NONE));
    EXPECT_EQ(WTERMSIG(StatusOf([&] { *static_cast<volatile char*>(fresh.data()) = 1; })), SIGSEGV);
  }));
}

}  // namespace
}  // namespace moat::guest
