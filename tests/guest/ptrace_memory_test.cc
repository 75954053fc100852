// ptrace(2): memory and registers of a stopped tracee.
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

#include <array>
#include <vector>

#include "tests/guest/support/call_site.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/tracee.h"

namespace moat::guest {
namespace {

volatile long word_of_data = 0x1122334455667788;
const long word_of_constants = 0x0102030405060708;

TEST(PtraceMemory, PeekAndPoke) {
  Tracee t([] { _exit(word_of_data == 77 ? 3 : 4); });
  EXPECT_EQ(t.Peek(&word_of_data), 0x1122334455667788);
  ASSERT_OK(t.Request(PTRACE_POKEDATA, Address(&word_of_data), 77));
  EXPECT_EQ(t.Peek(&word_of_data), 77);
  EXPECT_EQ(word_of_data, 0x1122334455667788);
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceMemory, Unaligned) {
  Tracee t([] {});
  EXPECT_EQ(t.Peek(reinterpret_cast<const volatile char*>(&word_of_data) + 1) & 0xffffff, 0x556677);
}
TEST(PtraceMemory, ProtectionDoesNotMatter) {
  Tracee t([] { _exit(*const_cast<const volatile long*>(&word_of_constants) == 5 ? 3 : 4); });
  ASSERT_OK(t.Request(PTRACE_POKETEXT, Address(&word_of_constants), 5));
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceMemory, NowhereIsEio) {
  Tracee t([] {});
  long word;
  EXPECT_FAIL(t.Request(PTRACE_PEEKDATA, 8, &word), EIO);
  EXPECT_FAIL(t.Request(PTRACE_POKEDATA, 8, 1), EIO);
  EXPECT_FAIL(t.Request(PTRACE_PEEKDATA, ~uintptr_t{0} - 3, &word), EIO);
  EXPECT_FAIL(t.Request(PTRACE_PEEKDATA, Address(&word_of_data), uintptr_t{8}), EFAULT);
}
TEST(PtraceMemory, AcrossTheEndOfAMapping) {
  Mapping two(2 * kPage);
  ASSERT_OK(munmap(two.page(1), kPage));
  Tracee t([] {});
  long word;
  EXPECT_OK(t.Request(PTRACE_PEEKDATA, Address(two.page(1) - 8), &word));
  EXPECT_FAIL(t.Request(PTRACE_PEEKDATA, Address(two.page(1) - 4), &word), EIO);
}
TEST(PtraceMemory, Breakpoint) {
  Code code(Call(SYS_getpid) + kRet);
  Tracee t([&] { _exit(code() == getpid() ? 3 : 4); });
  const long original = t.Peek(code.at());
  ASSERT_OK(t.Request(PTRACE_POKETEXT, Address(code.at()), static_cast<uintptr_t>((original & ~0xffl) | 0xcc)));
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  EXPECT_EQ(t.Info().si_code, SI_KERNEL);
  user_regs_struct regs = t.Regs();
  EXPECT_EQ(regs.rip, Address(code.at()) + 1);
  ASSERT_OK(t.Request(PTRACE_POKETEXT, Address(code.at()), static_cast<uintptr_t>(original)));
  --regs.rip;
  t.SetRegs(regs);
  EXPECT_EQ(t.Go(), Exited(3));
}
// What a sandbox does to code that makes calls often is no business of a debugger.
TEST(PtraceMemory, HotCodeShowsItsOwnBytes) {
  HotSites sites;
  Tracee t([&] { sites.Heat(); });
  char buffer[2 * kPage];
  ASSERT_EQ(t.Go(), Exited(0));
  Tracee u([&] {
    sites.Heat();
    raise(SIGUSR1);
    EXPECT_EQ(sites.Ask(), TrueIdentity());
  });
  ASSERT_EQ(u.Go(), Stopped(SIGUSR1));
  const std::string path = "/proc/" + std::to_string(u.pid()) + "/mem";
  ScopedFd mem(open(path.c_str(), O_RDWR));
  ASSERT_OK(mem.get());
  const char* start = sites.code().at();
  const size_t size = sites.code().size();
  ASSERT_EQ(pread(mem.get(), buffer, size, static_cast<off_t>(Address(start))), static_cast<ssize_t>(size));
  for (size_t n = 0; n < 14; ++n) {
    const uint8_t* site = reinterpret_cast<uint8_t*>(buffer) + n * 256;
    EXPECT_EQ(site[0], 0xb8) << n;
    EXPECT_EQ(site[5], 0x0f) << n;
    EXPECT_EQ(site[6], 0x05) << n;
    EXPECT_EQ(site[7], 0xc3) << n;
    EXPECT_EQ(site[8], n < 7 ? 0xcc : 0xb8) << n;
  }
  // A breakpoint at a hot call.
  const long original = u.Peek(start + 5);
  EXPECT_EQ(original & 0xffff, 0x050f);
  ASSERT_OK(u.Request(PTRACE_POKETEXT, Address(start + 5), static_cast<uintptr_t>((original & ~0xffl) | 0xcc)));
  ASSERT_EQ(u.Go(), Stopped(SIGTRAP));
  user_regs_struct regs = u.Regs();
  EXPECT_EQ(regs.rip, Address(start + 6));
  EXPECT_EQ(regs.rax, static_cast<unsigned long>(SYS_getpid));
  ASSERT_OK(u.Request(PTRACE_POKETEXT, Address(start + 5), static_cast<uintptr_t>(original)));
  --regs.rip;
  u.SetRegs(regs);
  EXPECT_EQ(u.Go(), Exited(0));
}
TEST(PtraceMemory, ProcessVm) {
  Tracee t([] {});
  long word = 0;
  iovec local = {&word, sizeof word}, remote = {const_cast<long*>(&word_of_data), sizeof word};
  EXPECT_EQ(process_vm_readv(t.pid(), &local, 1, &remote, 1, 0), 8);
  EXPECT_EQ(word, 0x1122334455667788);
}

// --- registers ---
TEST(PtraceRegisters, User) {
  Tracee t([] {});
  const user_regs_struct regs = t.Regs();
  unsigned long value = 0;
  ASSERT_OK(t.Request(PTRACE_PEEKUSER, offsetof(user, regs.rsp), &value));
  EXPECT_EQ(value, regs.rsp);
  EXPECT_FAIL(t.Request(PTRACE_PEEKUSER, offsetof(user, regs.rsp) + 1, &value), EIO);
  EXPECT_FAIL(t.Request(PTRACE_PEEKUSER, 928, &value), EIO);
  ASSERT_OK(t.Request(PTRACE_PEEKUSER, offsetof(user, u_tsize), &value));
  EXPECT_EQ(value, 0u);
  EXPECT_FAIL(t.Request(PTRACE_POKEUSER, offsetof(user, u_tsize), 1), EIO);
  EXPECT_EQ(regs.cs, 0x33u);
  EXPECT_EQ(regs.ss, 0x2bu);
  EXPECT_EQ(regs.ds, 0u);
  EXPECT_NE(regs.fs_base, 0u);
}
TEST(PtraceRegisters, WhatTheKernelRefuses) {
  Tracee t([] {});
  EXPECT_FAIL(t.Request(PTRACE_POKEUSER, offsetof(user, regs.cs), uintptr_t{0}), EIO);
  EXPECT_FAIL(t.Request(PTRACE_POKEUSER, offsetof(user, regs.ss), 0x28), EIO);
  EXPECT_FAIL(t.Request(PTRACE_POKEUSER, offsetof(user, regs.fs_base), uintptr_t{1} << 63), EIO);
  EXPECT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.cs), 0x33));
  // Only the flags of user code change.
  const unsigned long flags = t.Regs().eflags;
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.eflags), (flags ^ 1) | 1 << 12 | 1 << 17));
  EXPECT_EQ(t.Regs().eflags, flags ^ 1);
}
TEST(PtraceRegisters, AllOfThem) {
  // Sets nothing, ends in int3 where the tracer looks.
  Code code(Bytes{0xcc, 0xcc});
  Tracee t([] {});
  user_regs_struct regs = t.Regs();
  regs.rip = Address(code.at());
  regs.orig_rax = ~0ull;
  regs.rax = 1, regs.rbx = 2, regs.rcx = 3, regs.rdx = 4, regs.rsi = 5, regs.rdi = 6, regs.rbp = 7;
  regs.r8 = 8, regs.r9 = 9, regs.r10 = 10, regs.r11 = 11, regs.r12 = 12, regs.r13 = 13, regs.r14 = 14, regs.r15 = 15;
  t.SetRegs(regs);
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  user_regs_struct after = t.Regs();
  EXPECT_EQ(after.rip, regs.rip + 1);
  after.rip = regs.rip;
  after.eflags = regs.eflags = 0;
  EXPECT_EQ(memcmp(&after, &regs, sizeof regs), 0);
}
TEST(PtraceRegisters, WildInstructionPointer) {
  Tracee t([] {});
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.rip), uintptr_t{0xdead000000000000}));
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.orig_rax), static_cast<uintptr_t>(-1)));
  EXPECT_EQ(t.Go(), Stopped(SIGSEGV));
}
TEST(PtraceRegisters, GeneralSet) {
  Tracee t([] {});
  std::array<unsigned long, 40> words = {};
  iovec io = {words.data(), sizeof words};
  ASSERT_OK(t.Request(PTRACE_GETREGSET, NT_PRSTATUS, &io));
  EXPECT_EQ(io.iov_len, sizeof(user_regs_struct));
  const user_regs_struct regs = t.Regs();
  EXPECT_EQ(memcmp(words.data(), &regs, sizeof regs), 0);
  io.iov_len = 16;
  ASSERT_OK(t.Request(PTRACE_GETREGSET, NT_PRSTATUS, &io));
  EXPECT_EQ(io.iov_len, 16u);
  io.iov_len = 12;
  EXPECT_FAIL(t.Request(PTRACE_GETREGSET, NT_PRSTATUS, &io), EINVAL);
  EXPECT_FAIL(t.Request(PTRACE_GETREGSET, 0x7777, &io), EINVAL);
  io = {words.data(), sizeof words};
  words[offsetof(user_regs_struct, rbx) / 8] = 4711;
  ASSERT_OK(t.Request(PTRACE_SETREGSET, NT_PRSTATUS, &io));
  EXPECT_EQ(t.Regs().rbx, 4711u);
}
TEST(PtraceRegisters, FloatingPoint) {
  // movq %xmm3, %rbx; int3
  Code code(Bytes{0x66, 0x48, 0x0f, 0x7e, 0xdb, 0xcc});
  Tracee t([] {});
  user_fpregs_struct fp = {};
  ASSERT_OK(t.Request(PTRACE_GETFPREGS, 0, &fp));
  EXPECT_EQ(fp.mxcsr & ~0x3fu, 0x1f80u);
  fp.xmm_space[12] = 0x89abcdef;
  fp.xmm_space[13] = 0x01234567;
  ASSERT_OK(t.Request(PTRACE_SETFPREGS, 0, &fp));
  user_fpregs_struct again = {};
  ASSERT_OK(t.Request(PTRACE_GETFPREGS, 0, &again));
  EXPECT_EQ(memcmp(&fp, &again, sizeof fp), 0);
  user_regs_struct regs = t.Regs();
  regs.rip = Address(code.at());
  regs.orig_rax = ~0ull;
  t.SetRegs(regs);
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  EXPECT_EQ(t.Regs().rbx, 0x0123456789abcdefu);
  fp.mxcsr = 0xffffffff;
  EXPECT_FAIL(t.Request(PTRACE_SETFPREGS, 0, &fp), EINVAL);
}
TEST(PtraceRegisters, ExtendedState) {
  Tracee t([] {});
  std::vector<uint8_t> state(16384);
  iovec io = {state.data(), state.size()};
  ASSERT_OK(t.Request(PTRACE_GETREGSET, NT_X86_XSTATE, &io));
  ASSERT_GE(io.iov_len, 576u);
  state.resize(io.iov_len);
  uint64_t features;
  memcpy(&features, &state[464], sizeof features);
  EXPECT_EQ(features & 3, 3u);
  user_fpregs_struct fp = {};
  ASSERT_OK(t.Request(PTRACE_GETFPREGS, 0, &fp));
  EXPECT_EQ(memcmp(&fp, state.data(), 416), 0);
  state[160 + 16 * 5] = 0x5a;  // xmm5
  state[512] |= 2;
  io = {state.data(), state.size()};
  ASSERT_OK(t.Request(PTRACE_SETREGSET, NT_X86_XSTATE, &io));
  ASSERT_OK(t.Request(PTRACE_GETFPREGS, 0, &fp));
  EXPECT_EQ(fp.xmm_space[20] & 0xff, 0x5au);
  state[519] = 0x80;  // a feature that is none
  EXPECT_FAIL(t.Request(PTRACE_SETREGSET, NT_X86_XSTATE, &io), EINVAL);
  state[519] = 0;
  state[540] = 1;
  EXPECT_FAIL(t.Request(PTRACE_SETREGSET, NT_X86_XSTATE, &io), EINVAL);
  io.iov_len = 64;
  EXPECT_FAIL(t.Request(PTRACE_SETREGSET, NT_X86_XSTATE, &io), EFAULT);
}
TEST(PtraceRegisters, DebugRegistersThatWatchNothing) {
  Tracee t([] {});
  unsigned long value = 1;
  ASSERT_OK(t.Request(PTRACE_PEEKUSER, offsetof(user, u_debugreg[7]), &value));
  EXPECT_EQ(value, 0u);
  ASSERT_OK(t.Request(PTRACE_PEEKUSER, offsetof(user, u_debugreg[6]), &value));
  EXPECT_EQ(value, 0xffff0ff0u);
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, u_debugreg[0]), Address(&word_of_data)));
  ASSERT_OK(t.Request(PTRACE_PEEKUSER, offsetof(user, u_debugreg[0]), &value));
  EXPECT_EQ(value, Address(&word_of_data));
  EXPECT_FAIL(t.Request(PTRACE_POKEUSER, offsetof(user, u_debugreg[4]), 1), EIO);
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, u_debugreg[7]), uintptr_t{0}));
}
TEST(PtraceRegisters, SegmentBases) {
  Tracee t([] {});
  unsigned long base = 0;
  ASSERT_OK(t.Request(30, Address(&base), ARCH_GET_FS));
  EXPECT_EQ(base, t.Regs().fs_base);
  ASSERT_OK(t.Request(30, 0x12345000, ARCH_SET_GS));
  EXPECT_EQ(t.Regs().gs_base, 0x12345000u);
  // And the program has it there: mov %gs:0, %rax faults at that address.
  Code code(Bytes{0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0});
  user_regs_struct regs = t.Regs();
  regs.rip = Address(code.at());
  regs.orig_rax = ~0ull;
  t.SetRegs(regs);
}

}  // namespace
}  // namespace moat::guest
