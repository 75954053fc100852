// Runs hand-assembled guests on every platform that works here.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "platform/base/log.h"
#include "platform/fiber/clock.h"
#include "platform/fiber/thread.h"
#include "platform/registry.h"

namespace moat {
namespace {

constexpr GuestAddr kCode = 0x400000;
constexpr GuestAddr kData = 0x500000;

class PlatformTest : public testing::TestWithParam<std::string_view> {
 protected:
  PlatformTest() {
    SetLog(2, LogLevel::kWarning);
    auto platform = FindPlatform(GetParam())->create({});
    EXPECT_TRUE(platform.ok());
    platform_ = std::move(*platform);
    space_ = *platform_->NewAddressSpace();
    context_ = *platform_->NewContext();
    fd_ = memfd_create("guest", 0);
    EXPECT_EQ(ftruncate(fd_, 1 << 20), 0);
    memory_ = static_cast<uint8_t*>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    space_->Map(kCode, 4096, PROT_READ | PROT_EXEC, true, fd_, 0);
    space_->Map(kData, 4096, PROT_READ | PROT_WRITE, true, fd_, 4096);
    regs_.gp.rip = kCode;
    regs_.gp.cs = 0x33;
    regs_.gp.ss = 0x2b;
    regs_.gp.eflags = 0x202;
    regs_.gp.rsp = kData + 4096;
  }
  ~PlatformTest() override {
    context_->Release();
    context_.reset();
    space_.reset();
    munmap(memory_, 1 << 20);
    close(fd_);
  }
  void Code(std::initializer_list<uint8_t> bytes, size_t at = 0) { memcpy(memory_ + at, bytes.begin(), bytes.size()); }
  uint8_t* data() { return memory_ + 4096; }
  Event Run() { return context_->Switch(*space_, regs_); }
  FaultEvent RunToFault() {
    Event e = Run();
    EXPECT_TRUE(std::holds_alternative<FaultEvent>(e));
    return std::holds_alternative<FaultEvent>(e) ? std::get<FaultEvent>(e) : FaultEvent{};
  }

  std::unique_ptr<Platform> platform_;
  RefPtr<AddressSpace> space_;
  std::unique_ptr<Context> context_;
  int fd_;
  uint8_t* memory_;
  Registers regs_;
};

TEST_P(PlatformTest, SystemCallsStopWithTheirRegistersAndReturn) {
  Code({0xb8, 0x6e, 0,    0, 0,           // mov $110, %eax
        0xbf, 0x07, 0,    0, 0,           // mov $7, %edi
        0x0f, 0x05,                       // syscall
        0x89, 0x04, 0x25, 0, 0, 0x50, 0,  // mov %eax, 0x500000
        0x0f, 0x05, 0xf4});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(regs_.SyscallNumber(), 110u);
  EXPECT_EQ(regs_.SyscallArg(0), 7u);
  regs_.SetReturn(1234);
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(*reinterpret_cast<int*>(data()), 1234);
}

TEST_P(PlatformTest, FaultsNameTheSignalAndAddress) {
  Code({0x8b, 0x04, 0x25, 0, 0, 0x60, 0});  // mov 0x600000, %eax
  FaultEvent f = RunToFault();
  EXPECT_EQ(f.signo, SIGSEGV);
  EXPECT_EQ(f.si_code, SEGV_MAPERR);
  EXPECT_EQ(f.address, 0x600000u);
  space_->Map(0x600000, 4096, PROT_READ, true, fd_, 8192);
  *reinterpret_cast<int*>(memory_ + 8192) = 99;
  Code({0x0f, 0x05}, 7);
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(regs_.gp.orig_rax, 99u);
}

TEST_P(PlatformTest, OtherFaults) {
  Code({0x0f, 0x0b});  // ud2
  EXPECT_EQ(RunToFault().signo, SIGILL);
  Code({0xcc});  // int3
  EXPECT_EQ(RunToFault().signo, SIGTRAP);
  regs_.gp.rip = kCode;
  Code({0x31, 0xc9, 0xf7, 0xf1});  // xor %ecx, %ecx; div %ecx
  EXPECT_EQ(RunToFault().signo, SIGFPE);
  regs_.gp.rip = kCode;
  Code({0x90, 0x90});
  regs_.gp.eflags |= 0x100;  // single step
  EXPECT_EQ(RunToFault().signo, SIGTRAP);
  regs_.gp.eflags &= ~0x100ull;
}

TEST_P(PlatformTest, LegacyWaysIntoTheKernelAreFaults) {
  Code({0xb8, 0x14, 0, 0, 0, 0xcd, 0x80});  // int $0x80
  EXPECT_EQ(RunToFault().signo, SIGSEGV);
  regs_.gp.rip = kCode;
  Code({0xb8, 0x14, 0, 0, 0, 0x0f, 0x34});  // sysenter
  Event e = Run();
  EXPECT_TRUE(std::holds_alternative<FaultEvent>(e));
}

TEST_P(PlatformTest, ProtectAndUnmapTakeEffect) {
  Code({0xc6, 0x04, 0x25, 0, 0, 0x50, 0, 1,  // movb $1, 0x500000
        0x0f, 0x05});
  space_->Protect(kData, 4096, PROT_READ);
  FaultEvent f = RunToFault();
  EXPECT_EQ(f.si_code, SEGV_ACCERR);
  EXPECT_EQ(f.address, kData);
  space_->Protect(kData, 4096, PROT_READ | PROT_WRITE);
  EXPECT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(data()[0], 1);
  space_->Unmap(kData, 4096);
  ASSERT_TRUE(context_->Complete(regs_).ok());
  regs_.gp.rip = kCode;
  EXPECT_EQ(RunToFault().si_code, SEGV_MAPERR);
}

TEST_P(PlatformTest, ManyOperationsInOneFlush) {
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  for (int i = 0; i < 500; ++i) space_->Map(0x10000000 + i * 8192, 4096, PROT_READ, true, fd_, (i % 200) * 4096);
  EXPECT_TRUE(space_->Flush(context_.get()).ok());
  space_->Map(0x20000000, 4096, PROT_READ, true, 987, 0);  // a descriptor that is not open
  EXPECT_EQ(space_->Flush(context_.get()).error(), kEBADF);
}

TEST_P(PlatformTest, InterruptEndsAnEndlessLoop) {
  Code({0xeb, 0xfe});  // jmp .
  std::atomic<bool> stop{false};
  std::thread other([&] {
    for (int i = 0; i < 20; ++i) {
      usleep(2000);
      context_->Interrupt();
    }
    stop = true;
  });
  int interrupts = 0;
  while (!stop) {
    if (std::holds_alternative<InterruptEvent>(Run())) ++interrupts;
    if (interrupts == 20) break;
  }
  other.join();
  EXPECT_GE(interrupts, 1);
}

TEST_P(PlatformTest, ThreadsShareTheAddressSpace) {
  // Each thread adds 1 to a word 1000 times and makes a call.
  Code({0xb9, 0xe8, 0x03, 0, 0,                 // mov $1000, %ecx
        0xf0, 0xff, 0x04, 0x25, 0, 0, 0x50, 0,  // lock incl 0x500000
        0xff, 0xc9, 0x75, 0xf4,                 // dec %ecx; jnz
        0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  std::vector<std::unique_ptr<Context>> children;
  for (int i = 0; i < 8; ++i) children.push_back(*context_->Clone(true));
  std::vector<HostThread> carriers;
  std::atomic<int> ok{0};
  for (auto& c : children) {
    carriers.push_back(*HostThread::Start("carrier", [&, child = c.get()] {
      Registers r = regs_;
      r.gp.rip = kCode;
      if (std::holds_alternative<SyscallEvent>(child->Switch(*space_, r))) ++ok;
      child->Release();
    }));
  }
  for (HostThread& t : carriers) t.Join();
  EXPECT_EQ(ok, 8);
  EXPECT_EQ(*reinterpret_cast<int*>(data()), 9000);
}

TEST_P(PlatformTest, AThreadOutlivesItsCreatorAndItsFirstThread) {
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  auto child = *context_->Clone(true);
  context_->Release();  // the child has not run yet; the stub must stay
  auto carrier = HostThread::Start("carrier", [&] {
    Registers r = regs_;
    r.gp.rip = kCode;
    EXPECT_TRUE(std::holds_alternative<SyscallEvent>(child->Switch(*space_, r)));
    child->Release();  // the last thread, and not the first: the whole stub ends, and this does not hang
  });
  ASSERT_TRUE(carrier.ok());
  carrier->Join();
}

TEST_P(PlatformTest, AThreadThatNeverRanIsEnded) {
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  auto child = *context_->Clone(true);
  child->Release();
  regs_.gp.rip = kCode;
  EXPECT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
}

TEST_P(PlatformTest, AFreshStubShowsNothingOfTheSentry) {
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  ExtendedState state = *context_->GetExtendedState();
  EXPECT_EQ(std::vector<uint8_t>(state.begin() + 160, state.begin() + 416), std::vector<uint8_t>(256));
}

TEST_P(PlatformTest, CommandPagesOfManyStubsAreTheirOwn) {
  Code({0x0f, 0x05});
  for (int i = 0; i < 30; ++i) {
    RefPtr<AddressSpace> space = *platform_->NewAddressSpace();
    std::unique_ptr<Context> context = *platform_->NewContext();
    space->Map(kCode, 4096, PROT_READ | PROT_EXEC, true, fd_, 0);
    Registers r = regs_;
    EXPECT_TRUE(std::holds_alternative<SyscallEvent>(context->Switch(*space, r))) << i;
    context->Release();
  }
}

TEST_P(PlatformTest, FlushFromOutsideReachesRunningThreads) {
  Code({0x8a, 0x04, 0x25, 0, 0, 0x50, 0, 0xeb, 0xf7});  // 1: mov 0x500000, %al; jmp 1b
  std::thread other([&] {
    usleep(20'000);
    space_->Unmap(kData, 4096);
    EXPECT_TRUE(space_->Flush(nullptr).ok());
  });
  EXPECT_EQ(RunToFault().si_code, SEGV_MAPERR);
  other.join();
}

TEST_P(PlatformTest, NonCanonicalStateIsAFaultNotAFailure) {
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  regs_.gp.rip = 0xdead000000000000;
  EXPECT_EQ(RunToFault().signo, SIGSEGV);
  regs_.gp.rip = kCode;
  regs_.gp.fs_base = 0xdead000000000000;
  EXPECT_EQ(RunToFault().signo, SIGSEGV);
}

TEST_P(PlatformTest, ExtendedStateSurvivesAndIsChecked) {
  Code({0x0f, 0x05, 0x66, 0x0f, 0x7f, 0x04, 0x25, 0, 0, 0x50, 0, 0x0f, 0x05});  // movdqa %xmm0, 0x500000
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  ExtendedState state = *context_->GetExtendedState();
  for (int i = 0; i < 16; ++i) state[160 + i] = static_cast<uint8_t>(i + 1);
  state[512] |= 3;
  ASSERT_TRUE(context_->SetExtendedState(state).ok());
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(data()[15], 16);
  ASSERT_TRUE(context_->Complete(regs_).ok());
  state[512 + 8] = 0xff;  // XCOMP_BV: reserved
  EXPECT_EQ(context_->SetExtendedState(state).error(), kEINVAL);
}

TEST_P(PlatformTest, AKilledStubIsAnExitEvent) {
  Code({0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xfe});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  std::thread other([&] {
    usleep(20'000);
    kill(platform_->zygote_pid(), SIGKILL);  // its stubs follow
  });
  Event e = Run();
  other.join();
  EXPECT_TRUE(std::holds_alternative<ExitEvent>(e));
}

TEST_P(PlatformTest, TrivialCallCost) {
  Code({0x0f, 0x05, 0xeb, 0xfc});  // 1: syscall; jmp 1b
  for (int i = 0; i < 1000; ++i) Run();
  constexpr int kCalls = 20'000;
  Nanos start = MonotonicNow();
  for (int i = 0; i < kCalls; ++i) {
    ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
    regs_.SetReturn(0);
  }
  double ns = static_cast<double>(MonotonicNow() - start) / kCalls;
  printf("trivial system call: %.0f ns\n", ns);
  RecordProperty("ns_per_call", static_cast<int>(ns));
}

std::vector<std::string_view> WorkingPlatforms() {
  std::vector<std::string_view> names;
  for (const PlatformInfo& p : Platforms()) {
    if (p.why_unavailable().empty()) names.push_back(p.name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, PlatformTest, testing::ValuesIn(WorkingPlatforms()),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace moat
