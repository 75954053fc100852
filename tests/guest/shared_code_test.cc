// A program that is started again and again: a sandbox may know its code by then and rewrite what is slow in it, and
// nothing but the speed may show it. Each case starts this program many times in a role.
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <ucontext.h>
#include <unistd.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/guest/support/call_site.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

// Each loads a leaf and asks the CPU, with its own unwind information, as compiled functions have it. `out`: eax, ebx,
// ecx, edx, and the flags after; rsi: the subleaf, rdx: the flags before.
extern "C" {
struct CpuidResult {
  uint64_t rax, rbx, rcx, rdx, flags;
};
using CpuidFn = void(CpuidResult* out, uint64_t subleaf, uint64_t flags);
void CpuidMaximum(CpuidResult*, uint64_t, uint64_t);
void CpuidFeatures(CpuidResult*, uint64_t, uint64_t);
void CpuidState(CpuidResult*, uint64_t, uint64_t);
void CpuidProcessor(CpuidResult*, uint64_t, uint64_t);
void CpuidExtended(CpuidResult*, uint64_t, uint64_t);
void CpuidCache(CpuidResult*, uint64_t, uint64_t);
void CpuidNowhere(CpuidResult*, uint64_t, uint64_t);
// The leaf is in rcx; goes to the instruction behind the load in CpuidExtended.
void CpuidByJump(CpuidResult*, uint64_t, uint64_t, uint64_t leaf);
// The same in a function of its own.
void CpuidOf(CpuidResult*, uint64_t, uint64_t, uint64_t leaf);
// Looks like code, and is data: no unwind information covers it.
extern const uint8_t not_code[16];
extern const char cpuid_code_start[], cpuid_code_end[], cpuid_extended_site[];
long SiteGetPpid();
long SiteOf(long number);
}
// clang-format off
#define FUNCTION(name) ".balign 16\n.globl " #name "\n" #name ":\n.cfi_startproc\n"
#define BEFORE "push %rbx\n.cfi_adjust_cfa_offset 8\nmov %rdi, %r8\nmov %rsi, %r9\nmov %rcx, %r10\npush %rdx\npopfq\nmov %r9, %rcx\n"
#define AFTER \
  "pushfq\npopq 32(%r8)\nmov %rax, (%r8)\nmov %rbx, 8(%r8)\nmov %rcx, 16(%r8)\nmov %rdx, 24(%r8)\ncld\n" \
  "pop %rbx\n.cfi_adjust_cfa_offset -8\nret\n.cfi_endproc\n"
#define ASKS(name, leaf) FUNCTION(name) BEFORE "mov $" leaf ", %eax\ncpuid\n" AFTER
// clang-format on
__asm__(
    ".text\n.globl cpuid_code_start\n.balign 4096\ncpuid_code_start:\n"
    ASKS(CpuidMaximum, "0") ASKS(CpuidFeatures, "7") ASKS(CpuidState, "0xd") ASKS(CpuidProcessor, "1")
    FUNCTION(CpuidExtended) BEFORE "mov $0x80000000, %eax\n.globl cpuid_extended_site\ncpuid_extended_site: cpuid\n" AFTER
    ASKS(CpuidCache, "0x8000001d") ASKS(CpuidNowhere, "0x00ffffff")
    FUNCTION(CpuidByJump) BEFORE "mov %r10, %rax\njmp cpuid_extended_site\n.cfi_endproc\n"
    FUNCTION(CpuidOf) BEFORE "mov %r10, %rax\ncpuid\n" AFTER
    ".balign 16\n.globl not_code\nnot_code: .byte 0x90, 0xb8, 0, 0, 0, 0x80, 0x0f, 0xa2, 0x90, 0xb8, 0, 0, 0, 0x80, 0x0f, 0xa2\n"
    ".balign 4096\n.globl cpuid_code_end\ncpuid_code_end:\n"
    FUNCTION(SiteGetPpid) "mov $110, %eax\nsyscall\nret\n.cfi_endproc\n"
    FUNCTION(SiteOf) "mov %edi, %eax\nsyscall\nret\n.cfi_endproc\n.balign 16, 0xcc\n");

namespace moat::guest {
namespace {

// More often than it takes a sandbox to find out, with time between the first ones.
constexpr int kStarts = 40;

struct Question {
  CpuidFn* ask;
  uint32_t leaf;
  std::vector<uint64_t> subleaves;
};
const std::vector<Question> kQuestions = {{CpuidMaximum, 0, {0, 5}},
                                          {CpuidFeatures, 7, {0, 1, 2, 0x1'0000'0000}},
                                          {CpuidState, 0xd, {0, 1, 2, 3, 9, 63}},
                                          {CpuidExtended, 0x80000000, {0, 9}},
                                          {CpuidCache, 0x8000001d, {0, 1, 2, 3, 4, 100}},
                                          {CpuidNowhere, 0x00ffffff, {0}}};
// Carry, parity, zero, sign, overflow; none; all of them.
constexpr uint64_t kFlags[] = {0x202, 0x202 | 0x8d5, 0x202 | 0x1, 0x202 | 0x800, 0x202 | 0x40};

bool Same(const CpuidResult& a, const CpuidResult& b) { return memcmp(&a, &b, sizeof a) == 0; }

// What the CPU says by an instruction that is nobody's to rewrite: in memory that stays writable.
CpuidResult Truth(uint32_t leaf, uint64_t subleaf, uint64_t flags) {
  static const Mapping page(kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  static CpuidFn* const fn = [] {
    // push %rbx; mov %rdi,%r8; mov %ecx,%eax; mov %rsi,%rcx; cpuid; mov %rax,(%r8) ... ; pop %rbx; ret
    const uint8_t code[] = {0x53, 0x49, 0x89, 0xf8, 0x89, 0xc8, 0x48, 0x89, 0xf1, 0x0f, 0xa2, 0x49, 0x89, 0x00,
                            0x49, 0x89, 0x58, 0x08, 0x49, 0x89, 0x48, 0x10, 0x49, 0x89, 0x50, 0x18, 0x5b, 0xc3};
    memcpy(page.data(), code, sizeof code);
    return reinterpret_cast<CpuidFn*>(page.data());
  }();
  CpuidResult r = {};
  reinterpret_cast<void (*)(CpuidResult*, uint64_t, uint64_t, uint64_t)>(fn)(&r, subleaf, 0, leaf);
  r.flags = flags;
  return r;
}

int CountWrongAnswers() {
  int wrong = 0;
  for (const Question& q : kQuestions) {
    for (uint64_t subleaf : q.subleaves) {
      for (uint64_t flags : kFlags) {
        const CpuidResult truth = Truth(q.leaf, subleaf, flags);
        CpuidResult r = {}, by_jump = {}, of = {};
        q.ask(&r, subleaf, flags);
        CpuidByJump(&by_jump, subleaf, flags, q.leaf);
        CpuidOf(&of, subleaf, flags, q.leaf);
        wrong += !Same(r, truth) + !Same(by_jump, truth) + !Same(of, truth);
      }
    }
  }
  return wrong;
}

// Runs this program in a role, so often that a sandbox knows it, and returns how many starts ended otherwise than by
// exiting 0.
int StartManyTimes(const std::string& role, const std::vector<std::string>& arguments = {}) {
  int bad = 0;
  for (int i = 0; i < kStarts; ++i) {
    const std::string program = SelfPath(), flag = "--role=" + role;
    const int status = StatusOf([&] {
      std::vector<char*> argv = {const_cast<char*>(program.c_str()), const_cast<char*>(flag.c_str())};
      for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
      argv.push_back(nullptr);
      execv(program.c_str(), argv.data());
      _exit(99);
    });
    bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    if (i < 4) usleep(3000);
  }
  return bad;
}

MOAT_ROLE(cpuid) { return CountWrongAnswers(); }
TEST(SharedCode, CpuidAnswers) { EXPECT_EQ(StartManyTimes("cpuid"), 0); }

MOAT_ROLE(processor) {
  // The number of the CPU is in the answer: the right one, wherever the thread is.
  cpu_set_t all;
  sched_getaffinity(0, sizeof all, &all);
  int wrong = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    for (int i = 0; i < 20; ++i) {
      CpuidResult r = {};
      CpuidProcessor(&r, 0, 0x202);
      wrong += !Same(r, Truth(1, 0, 0x202));
    }
  }
  return wrong;
}
TEST(SharedCode, CpuidOfTheProcessor) { EXPECT_EQ(StartManyTimes("processor"), 0); }

MOAT_ROLE(gs_base) {
  static uint64_t area[512];
  if (syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, area) != 0) return 1;
  int wrong = CountWrongAnswers();
  // One that leads nowhere.
  if (syscall(SYS_arch_prctl, 0x1001, 0x1000) != 0) return 2;
  wrong += CountWrongAnswers();
  return wrong;
}
TEST(SharedCode, CpuidWithAGsBaseOfTheProgram) { EXPECT_EQ(StartManyTimes("gs_base"), 0); }

volatile sig_atomic_t ticks, strays;
void Tick(int, siginfo_t*, void* context) {
  const auto ip = static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  // Nothing but the program's own code, and the kernel's.
  extern const char _text_start[] __asm__("__executable_start"), _text_end[] __asm__("etext");
  const bool own = ip >= reinterpret_cast<uintptr_t>(_text_start) && ip < reinterpret_cast<uintptr_t>(_text_end);
  strays = strays + (own ? 0 : 1);
  ticks = ticks + 1;
  CpuidResult inner = {};
  CpuidExtended(&inner, 0, 0x202);
}
MOAT_ROLE(signals) {
  struct sigaction action = {};
  action.sa_sigaction = Tick;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  const CpuidResult extended = Truth(0x80000000, 0, 0x246), cache = Truth(0x8000001d, 1, 0x246);
  const itimerval often = {{0, 60}, {0, 60}};
  setitimer(ITIMER_REAL, &often, nullptr);
  int wrong = 0;
  for (int i = 0; i < 100000 && ticks < 40; ++i) {
    CpuidResult r = {};
    CpuidExtended(&r, 0, 0x246);
    wrong += !Same(r, extended);
    CpuidOf(&r, 1, 0x246, 0x8000001d);
    wrong += !Same(r, cache);
  }
  const itimerval never = {};
  setitimer(ITIMER_REAL, &never, nullptr);
  return wrong + strays;
}
TEST(SharedCode, SignalsMeetCpuid) { EXPECT_EQ(StartManyTimes("signals"), 0); }

MOAT_ROLE(calls) {
  // Few in each process, many in all of them.
  int wrong = 0;
  for (int i = 0; i < 3; ++i) {
    wrong += SiteGetPpid() != atol(argv[1]);
    wrong += SiteOf(SYS_getpid) != static_cast<long>(syscall(SYS_getpid));
    wrong += SiteOf(SYS_sched_yield) != 0;
    wrong += SiteOf(100000) != -ENOSYS;
  }
  return wrong;
}
TEST(SharedCode, CallsOfShortProcesses) { EXPECT_EQ(StartManyTimes("calls", {std::to_string(getpid())}), 0); }

// Where in this program's file the byte at `address` comes from.
off_t FileOffset(const void* address) {
  struct Search {
    uintptr_t address;
    off_t offset;
  } search = {reinterpret_cast<uintptr_t>(address), -1};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* arg) {
        auto& wanted = *static_cast<Search*>(arg);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& h = info->dlpi_phdr[i];
          const uintptr_t distance = wanted.address - (info->dlpi_addr + h.p_vaddr);
          if (h.p_type == PT_LOAD && distance < h.p_filesz) wanted.offset = static_cast<off_t>(h.p_offset + distance);
        }
        return 0;
      },
      &search);
  return search.offset;
}

// The file's own bytes of this program's code at `address`.
std::vector<uint8_t> FileBytes(const void* address, size_t n) {
  const ScopedFd self(open(SelfPath().c_str(), O_RDONLY));
  std::vector<uint8_t> bytes(n);
  if (pread(self.get(), bytes.data(), n, FileOffset(address)) != static_cast<ssize_t>(n)) bytes.clear();
  return bytes;
}

MOAT_ROLE(data) {
  const std::vector<uint8_t> own = FileBytes(not_code, sizeof not_code);
  return own.empty() || memcmp(own.data(), not_code, own.size()) != 0;
}
TEST(SharedCode, DataStaysAsItIs) { EXPECT_EQ(StartManyTimes("data"), 0); }

MOAT_ROLE(writable) {
  // Who may write to its code sees what it has, and runs it; so do children.
  char* const page = const_cast<char*>(cpuid_code_start);
  const size_t size = static_cast<size_t>(cpuid_code_end - cpuid_code_start);
  if (mprotect(page, size, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) return 1;
  const std::vector<uint8_t> own = FileBytes(page, size);
  if (own.size() != size || memcmp(own.data(), page, size) != 0) return 2;
  if (CountWrongAnswers() != 0) return 3;
  const int status = StatusOf([&] {
    if (memcmp(own.data(), page, size) != 0 || CountWrongAnswers() != 0) _exit(1);
    _exit(0);
  });
  return status == 0 ? 0 : 4;
}
TEST(SharedCode, CodeThatBecomesWritable) { EXPECT_EQ(StartManyTimes("writable"), 0); }

MOAT_ROLE(replaced) {
  // The pages go, and the same bytes come back as others.
  char* const page = const_cast<char*>(cpuid_code_start);
  const size_t size = static_cast<size_t>(cpuid_code_end - cpuid_code_start);
  const std::vector<uint8_t> own = FileBytes(page, size);
  void* fresh = mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (fresh != page || own.size() != size) return 1;
  memcpy(page, own.data(), size);
  if (mprotect(page, size, PROT_READ | PROT_EXEC) != 0) return 2;
  if (memcmp(own.data(), page, size) != 0) return 3;
  return CountWrongAnswers();
}
TEST(SharedCode, CodeThatIsMappedAnew) { EXPECT_EQ(StartManyTimes("replaced"), 0); }

MOAT_ROLE(discarded) {
  char* const page = const_cast<char*>(cpuid_code_start);
  const size_t size = static_cast<size_t>(cpuid_code_end - cpuid_code_start);
  if (madvise(page, size, MADV_DONTNEED) != 0) return 1;
  const std::vector<uint8_t> own = FileBytes(page, size);
  if (own.size() != size || memcmp(own.data(), page, size) != 0) return 2;
  return CountWrongAnswers();
}
TEST(SharedCode, CodeThatIsReadAnew) { EXPECT_EQ(StartManyTimes("discarded"), 0); }

MOAT_ROLE(vandal) {
  // Whatever a sandbox has put into this process beside its own: the worst to it, by every way there is.
  std::istringstream maps(ReadFile("/proc/self/maps"));
  const ScopedFd memory(open("/proc/self/mem", O_RDWR));
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with("[calls]") && line.find(SelfPath()) == std::string::npos) continue;
    uintptr_t start, end;
    if (sscanf(line.c_str(), "%lx-%lx", &start, &end) != 2) return 1;
    if (!line.ends_with("[calls]") && line.find("r-xp") == std::string::npos) continue;
    const std::vector<char> junk(end - start, 0x66);
    if (!line.ends_with("[calls]")) {
      // Code: but for what this runs itself.
      const auto from = reinterpret_cast<uintptr_t>(cpuid_code_start);
      (void)pwrite(memory.get(), junk.data(), static_cast<size_t>(cpuid_code_end - cpuid_code_start),
                   static_cast<off_t>(from));
      continue;
    }
    char* const at = reinterpret_cast<char*>(start);
    if (mprotect(at, end - start, PROT_READ | PROT_WRITE) == 0) memset(at, 0x66, end - start);
    (void)pwrite(memory.get(), junk.data(), junk.size(), static_cast<off_t>(start));
    (void)madvise(at, end - start, MADV_REMOVE);
    (void)madvise(at, end - start, MADV_DONTNEED);
    (void)mremap(at, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, at + (1 << 20));
    (void)munmap(at, end - start);
  }
  // What is left may be unfit to live in: by a call of no site that others have.
  __asm__ volatile("mov $231, %%eax\nmov $0, %%edi\nsyscall" ::: "rax", "rdi", "rcx", "r11", "memory");
  return 0;
}
TEST(SharedCode, AVandalHarmsOnlyItself) {
  EXPECT_EQ(StartManyTimes("cpuid"), 0);
  (void)StartManyTimes("vandal");
  EXPECT_EQ(StartManyTimes("cpuid"), 0);
  EXPECT_EQ(StartManyTimes("calls", {std::to_string(getpid())}), 0);
  EXPECT_EQ(StartManyTimes("data"), 0);
}

MOAT_ROLE(twice) {
  // The file's code once more, elsewhere: CpuidExtended of there has the same answers.
  const ScopedFd self(open(SelfPath().c_str(), O_RDONLY));
  const size_t size = static_cast<size_t>(cpuid_code_end - cpuid_code_start);
  void* copy = mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, self.get(), FileOffset(cpuid_code_start));
  if (copy == MAP_FAILED) return 1;
  const auto distance = static_cast<char*>(copy) - cpuid_code_start;
  const auto there = reinterpret_cast<CpuidFn*>(reinterpret_cast<char*>(CpuidExtended) + distance);
  CpuidResult r = {};
  there(&r, 0, 0x202);
  if (!Same(r, Truth(0x80000000, 0, 0x202))) return 2;
  if (munmap(copy, size) != 0) return 3;
  return CountWrongAnswers();
}
TEST(SharedCode, FileMappedTwice) { EXPECT_EQ(StartManyTimes("twice"), 0); }

MOAT_ROLE(forks) {
  for (int i = 0; i < 3; ++i) {
    if (StatusOf([] { _exit(CountWrongAnswers()); }) != 0) return 1;
  }
  return CountWrongAnswers();
}
TEST(SharedCode, Children) { EXPECT_EQ(StartManyTimes("forks"), 0); }

MOAT_ROLE(traced) {
  ptrace(PTRACE_TRACEME, 0, 0, 0);
  raise(SIGSTOP);
  return CountWrongAnswers();
}
TEST(SharedCode, TracersSeeTheProgramsOwnCode) {
  ASSERT_EQ(StartManyTimes("cpuid"), 0);
  const std::string program = SelfPath();
  const size_t size = static_cast<size_t>(cpuid_code_end - cpuid_code_start);
  const std::vector<uint8_t> own = FileBytes(cpuid_code_start, size);
  ASSERT_EQ(own.size(), size);
  const pid_t child = fork();
  if (child == 0) {
    execl(program.c_str(), program.c_str(), "--role=traced", nullptr);
    _exit(99);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  int wrong = 0;
  for (size_t at = 0; at < size; at += sizeof(long)) {
    const long word = ptrace(PTRACE_PEEKTEXT, child, cpuid_code_start + at, 0);
    wrong += memcmp(&word, own.data() + at, sizeof word) != 0;
  }
  EXPECT_EQ(wrong, 0);
  // A breakpoint on a `cpuid`, and the code back as it was.
  const char* const site = cpuid_extended_site;
  const long before = ptrace(PTRACE_PEEKTEXT, child, site, 0);
  EXPECT_OK(ptrace(PTRACE_POKETEXT, child, site, (before & ~0xffl) | 0xcc));
  EXPECT_OK(ptrace(PTRACE_CONT, child, 0, 0));
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGTRAP);
  user_regs_struct regs;
  EXPECT_OK(ptrace(PTRACE_GETREGS, child, 0, &regs));
  EXPECT_EQ(regs.rip, reinterpret_cast<uintptr_t>(site) + 1);
  regs.rip -= 1;
  EXPECT_OK(ptrace(PTRACE_SETREGS, child, 0, &regs));
  EXPECT_OK(ptrace(PTRACE_POKETEXT, child, site, before));
  EXPECT_OK(ptrace(PTRACE_CONT, child, 0, 0));
  EXPECT_EQ(WaitStatus(child), 0);
}

}  // namespace
}  // namespace moat::guest
