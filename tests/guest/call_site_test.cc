// Hot `syscall` instructions: a sandbox may rewrite them, and nothing but the speed of the calls may show it. Answers
// and registers; see the other call_site_* files for processes, signals and code that changes.
#include "tests/guest/support/call_site.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/guest/support/child.h"

// What every register holds before a site, and after it.
struct SiteState {
  uint64_t gp[14];  // rbx rdx rsi rdi rbp r8 r9 r10 r12 r13 r14 r15, flags, rax
  alignas(16) uint8_t xmm[16][16];
};
// clang-format off
#define EACH_REGISTER(f) \
  f(rbx, 0) f(rdx, 8) f(rsi, 16) f(rdi, 24) f(rbp, 32) f(r8, 40) f(r9, 48) f(r10, 56) f(r12, 64) f(r13, 72) f(r14, 80) f(r15, 88)
#define EACH_VECTOR(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define LOAD(reg, at) "movq site_in+" #at "(%rip), %" #reg "\n"
#define STORE(reg, at) "movq %" #reg ", site_out+" #at "(%rip)\n"
#define LOAD_VECTOR(n) "movups site_in+112+16*" #n "(%rip), %xmm" #n "\n"
#define STORE_VECTOR(n) "movups %xmm" #n ", site_out+112+16*" #n "(%rip)\n"
// clang-format on
extern "C" {
SiteState site_in, site_out;
void* site_target;
uint64_t site_red_zone[16];
void ProbeSite();
long OwnSite();
extern const char own_site_end[];
}
// Calls site_target with the registers of site_in and 128 known bytes below its stack pointer.
__asm__(
    ".text\n.globl ProbeSite\nProbeSite:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "movl $16, %ecx\n"
    "1: movq %rcx, %rax\nnegq %rax\nmovq %rcx, -8(%rsp,%rax,8)\ndecl %ecx\njnz 1b\n"
    EACH_VECTOR(LOAD_VECTOR) EACH_REGISTER(LOAD)
    "pushq site_in+96(%rip)\npopfq\n"
    "call *site_target(%rip)\n"
    "pushfq\npopq site_out+96(%rip)\ncld\n"
    EACH_REGISTER(STORE) EACH_VECTOR(STORE_VECTOR)
    "movq %rax, site_out+104(%rip)\n"
    "movl $16, %ecx\nleaq site_red_zone(%rip), %rdx\n"
    "1: movq %rcx, %rax\nnegq %rax\nmovq -8(%rsp,%rax,8), %rsi\nmovq %rsi, -8(%rdx,%rcx,8)\ndecl %ecx\njnz 1b\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
    // A site of the program's own file.
    ".balign 16\n.globl OwnSite\nOwnSite:\nmovl $39, %eax\nsyscall\nret\n"
    ".balign 16, 0xcc\n.fill 16, 1, 0xcc\n.globl own_site_end\nown_site_end:\n");

namespace moat::guest {
namespace {

TEST(CallSite, AnswersStayTheSame) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setresgid(21, 22, 23));
    ASSERT_OK(setresuid(11, 12, 0));
    const Identity truth = TrueIdentity();
    for (bool dense : {false, true}) {
      for (size_t call = 0; call < kIdentityCalls.size(); ++call) {
        const Bytes body = Call(kIdentityCalls[call]);
        const Code site(dense ? Dense(body) : Padded(body));
        int wrong = 0;
        Heat([&] { wrong += site() != truth[call]; });
        EXPECT_EQ(wrong, 0) << "call " << kIdentityCalls[call] << " dense " << dense;
      }
    }
  }));
}
TEST(CallSite, NumberInARegister) {
  const Identity truth = TrueIdentity();
  for (const Bytes& code : {Padded(kMovEdiEax + kSyscall), Dense(kMovEdiEax + kSyscall)}) {
    const Code site(code);
    int wrong = 0;
    Heat([&] { wrong += site(SYS_getpid) != truth[0]; });
    for (int i = 0; i < kHot; ++i) {
      for (size_t call = 0; call < kIdentityCalls.size(); ++call) wrong += site(kIdentityCalls[call]) != truth[call];
      wrong += site(SYS_sched_yield) != 0;
      wrong += site(100000) != -ENOSYS;
      wrong += site(-1) != -ENOSYS;
    }
    EXPECT_EQ(wrong, 0);
  }
}
TEST(CallSite, HighHalfOfTheNumber) {
  // Linux looks at eax only.
  const Bytes body = Bytes{0x48, 0x89, 0xf8} + kSyscall;  // mov %rdi, %rax
  const Code site(Padded(body));
  const long pid = TrueIdentity()[0];
  Heat([&] { EXPECT_EQ(site(SYS_getpid), pid); });
  EXPECT_EQ(site(0x7700000000 + SYS_getpid), pid);
  EXPECT_EQ(site(0x7700000000 + SYS_getuid), TrueIdentity()[3]);
}
TEST(CallSite, ReadOfNoBytes) {
  const ScopedFd null(open("/dev/zero", O_RDONLY));
  for (const Bytes& code : {Padded(kXorEax + kSyscall), Dense(kXorEax + kSyscall), Padded(Call(0)), Dense(Call(0))}) {
    const Code site(code);
    char byte = 'x';
    Heat([&] { EXPECT_EQ(site(null.get(), reinterpret_cast<long>(&byte), 0), 0); });
    EXPECT_EQ(site(null.get(), reinterpret_cast<long>(&byte), 1), 1);
    EXPECT_EQ(byte, 0);
    EXPECT_EQ(site(-1, reinterpret_cast<long>(&byte), 1), -EBADF);
    EXPECT_EQ(site(null.get(), 8, 1), -EFAULT);
  }
}
TEST(CallSite, LibraryCalls) {
  const Identity truth = TrueIdentity();
  int wrong = 0;
  Heat([&] {
    for (size_t call = 0; call < kIdentityCalls.size(); ++call) wrong += syscall(kIdentityCalls[call]) != truth[call];
    wrong += syscall(SYS_close, -1) != -1 || errno != EBADF;
    wrong += getpid() != truth[0] || getppid() != truth[2] || getuid() != truth[3] || geteuid() != truth[4];
    wrong += getgid() != truth[5] || getegid() != truth[6];
  });
  EXPECT_EQ(wrong, 0);
}
TEST(CallSite, ErrorCheckBehind) {
  // As libraries have it: cmp $-4095, %rax; jae 1f; ret; 1: mov $-1, %rax; ret
  const Bytes check = {0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01, 0xc3, 0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff};
  const long pid = TrueIdentity()[0];
  for (bool dense : {false, true}) {
    const Code good(dense ? Dense(Call(SYS_getpid) + check) : Padded(Call(SYS_getpid) + check));
    const Code bad(dense ? Dense(Call(SYS_close) + check) : Padded(Call(SYS_close) + check));
    int wrong = 0;
    Heat([&] { wrong += good() != pid || bad(-1) != -1; });
    EXPECT_EQ(wrong, 0);
  }
}
TEST(CallSite, JumpToTheMiddle) {
  const Identity truth = TrueIdentity();
  // The site, and behind its filler: mov %edi, %eax; jmp to its `syscall`.
  const Bytes site = Dense(Call(SYS_getpid));
  const uint32_t back = static_cast<uint32_t>(5 - static_cast<int>(site.size() + 7));
  const Code code(site + kMovEdiEax +
                  Bytes{0xe9, uint8_t(back), uint8_t(back >> 8), uint8_t(back >> 16), uint8_t(back >> 24)});
  CallFn* const middle = reinterpret_cast<CallFn*>(code.at(site.size()));
  Heat([&] { EXPECT_EQ(code(), truth[0]); });
  int wrong = 0;
  for (int i = 0; i < kHot; ++i) {
    for (size_t call = 0; call < kIdentityCalls.size(); ++call)
      wrong += middle(kIdentityCalls[call], 0, 0) != truth[call];
    wrong += middle(SYS_fchdir, 0, 0) != -EBADF;  // of descriptor 81, its own number
    wrong += code() != truth[0];
  }
  EXPECT_EQ(wrong, 0);
}

class Registers : public testing::TestWithParam<bool> {};
TEST_P(Registers, ArePreserved) {
  const Identity truth = TrueIdentity();
  for (size_t call = 0; call <= kIdentityCalls.size(); ++call) {
    const Bytes body = Call(call < kIdentityCalls.size() ? kIdentityCalls[call] : SYS_sched_yield);
    const Code site(GetParam() ? Dense(body) : Padded(body));
    const uint64_t want = call < kIdentityCalls.size() ? static_cast<uint64_t>(truth[call]) : 0;
    Heat([&] { (void)site(); });
    site_target = site.at();
    int wrong = 0;
    for (int bits = 0; bits < 128; ++bits) {
      for (size_t i = 0; i < 12; ++i) site_in.gp[i] = 0x0101010101010101 * (i + 1) + static_cast<uint64_t>(bits);
      for (int i = 0; i < 16; ++i) memset(site_in.xmm[i], bits + i, 16);
      // CF PF AF ZF SF DF OF
      constexpr uint64_t kFlags[] = {1, 4, 0x10, 0x40, 0x80, 0x400, 0x800};
      uint64_t flags = 0x202;
      for (int i = 0; i < 7; ++i) flags |= (bits >> i & 1) != 0 ? kFlags[i] : 0;
      site_in.gp[12] = flags;
      site_in.gp[13] = want;
      memset(&site_out, 0, sizeof site_out);
      ProbeSite();
      wrong += memcmp(&site_in, &site_out, sizeof site_in) != 0;
      for (uint64_t i = 0; i < 16; ++i) wrong += site_red_zone[i] != i + 1;
      if (wrong == 0) continue;
      for (int i = 0; i < 14; ++i) EXPECT_EQ(site_out.gp[i], site_in.gp[i]) << "call " << call << " word " << i;
      break;
    }
    EXPECT_EQ(wrong, 0);
  }
}
INSTANTIATE_TEST_SUITE_P(CallSite, Registers, testing::Bool());

TEST(CallSite, FlagsAtTheFirstCallOfManySites) {
  // More sites than one page of anything can describe.
  constexpr int kSites = 700;
  const Bytes one = Padded(Call(SYS_getpid));
  Mapping memory((kSites * one.size() / kPage + 2) * kPage);
  for (int i = 0; i < kSites; ++i) memcpy(memory.data() + kPage + i * one.size(), one.data(), one.size());
  ASSERT_OK(mprotect(memory.data(), memory.size(), PROT_READ | PROT_EXEC));
  const uint64_t pid = static_cast<uint64_t>(TrueIdentity()[0]);
  memset(&site_in, 0, sizeof site_in);
  site_in.gp[12] = 0xad7;  // all but the direction
  site_in.gp[13] = pid;
  for (int i = 0; i < kSites; ++i) {
    site_target = memory.data() + kPage + i * one.size();
    int wrong = 0;
    for (int n = 0; n < 110; ++n) {
      ProbeSite();
      wrong += memcmp(&site_in, &site_out, sizeof site_in) != 0;
    }
    ASSERT_EQ(wrong, 0) << "site " << i << " flags " << site_out.gp[12] << " rax " << site_out.gp[13];
  }
}
// A program that makes up what a sandbox shares with it may hang or die of it; no other process may wait for it.
TEST(CallSite, LiesHurtOnlyTheLiar) {
  const pid_t liar = Spawn([] {
    constexpr unsigned long kFsGsBase = 2;
    if ((getauxval(AT_HWCAP2) & kFsGsBase) == 0) return;
    std::atomic<char*> shared{nullptr};
    std::thread forger([&] {
      for (uint32_t word = 0;; ++word) {
        char* const at = shared;
        if (at == nullptr) continue;  // natively there is nothing
        if (word % 64 == 0) {
          // A signal frame that there is not.
          *reinterpret_cast<volatile uint64_t*>(at + 288) = reinterpret_cast<uint64_t>(at) + 8192;
          *reinterpret_cast<volatile uint64_t*>(at + 296) = reinterpret_cast<uint64_t>(at) + 12288;
          *reinterpret_cast<volatile uint32_t*>(at + 268) = ~0u;
        }
        *reinterpret_cast<volatile uint32_t*>(at + 256) = word % 16;
      }
    });
    const Code site(Padded(Call(SYS_sched_yield)));
    for (long calls = 0;; ++calls) {
      (void)site();
      if (calls != kHot) continue;
      char* base;
      __asm__ volatile("rdgsbase %0" : "=r"(base));
      shared = base;
    }
  });
  const Code site(Padded(Call(SYS_sched_yield)));
  for (int burst = 0; burst < 150; ++burst) {
    for (int i = 0; i < 300; ++i) ASSERT_EQ(site(), 0);
    usleep(1000);
  }
  EXPECT_OK(kill(liar, SIGKILL));
  WaitStatus(liar);
}
TEST(CallSite, OwnFileStaysTheSame) {
  const long pid = TrueIdentity()[0];
  Heat([&] { EXPECT_EQ(OwnSite(), pid); });
  const auto* header = reinterpret_cast<const Elf64_Phdr*>(getauxval(AT_PHDR));
  const auto site = reinterpret_cast<uintptr_t>(&OwnSite);
  const ScopedFd self(open("/proc/self/exe", O_RDONLY));
  bool found = false;
  for (unsigned long i = 0; i < getauxval(AT_PHNUM); ++i) {
    const Elf64_Phdr& p = header[i];
    if (p.p_type != PT_LOAD || site - p.p_vaddr >= p.p_filesz) continue;
    found = true;
    Bytes bytes(static_cast<size_t>(own_site_end - reinterpret_cast<const char*>(site)));
    ASSERT_EQ(pread(self.get(), bytes.data(), bytes.size(), static_cast<off_t>(site - p.p_vaddr + p.p_offset)),
              static_cast<ssize_t>(bytes.size()));
    Bytes want = Call(SYS_getpid) + kRet;
    want.resize(bytes.size(), 0xcc);
    const size_t gap = 16 - 8;  // the assembler's own choice of padding
    EXPECT_TRUE(memcmp(bytes.data(), want.data(), 8) == 0 &&
                memcmp(bytes.data() + 8 + gap, want.data() + 8 + gap, 16) == 0);
  }
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace moat::guest
