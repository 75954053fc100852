// Hostile guests against the trampoline and the areas; platform/platform_test.cc tests the rest.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "platform/base/log.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/systrap_platform.h"

namespace moat::systrap_platform {
namespace {

constexpr GuestAddr kCode = 0x400000;
constexpr GuestAddr kData = 0x500000;

class SystrapTest : public testing::Test {
 protected:
  void SetUp() override {
    SetLog(2, LogLevel::kError);
    if (!WhyUnavailable().empty()) GTEST_SKIP() << WhyUnavailable();
    platform_ = std::move(*Create({}));
    fd_ = memfd_create("guest", 0);
    ASSERT_EQ(ftruncate(fd_, 1 << 20), 0);
    memory_ = static_cast<uint8_t*>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    NewGuest();
  }
  void TearDown() override {
    if (context_) context_->Release();
    context_.reset();
    space_.reset();
    if (memory_ != nullptr) munmap(memory_, 1 << 20);
    if (fd_ >= 0) close(fd_);
  }
  void NewGuest() {
    if (context_) context_->Release();
    space_ = *platform_->NewAddressSpace();
    context_ = *platform_->NewContext();
    space_->Map(kCode, 4096, PROT_READ | PROT_EXEC, true, fd_, 0);
    space_->Map(kData, 4096, PROT_READ | PROT_WRITE, true, fd_, 4096);
    regs_ = Registers{};
    regs_.gp.rip = kCode;
    regs_.gp.cs = 0x33;
    regs_.gp.ss = 0x2b;
    regs_.gp.eflags = 0x202;
    regs_.gp.rsp = kData + 4096;
  }
  void Code(std::initializer_list<uint8_t> bytes) {
    memset(memory_, 0xcc, 4096);
    memcpy(memory_, bytes.begin(), bytes.size());
  }
  Event Run() { return context_->Switch(*space_, regs_); }
  // A guest of another process still works: nothing but the hostile one came to harm.
  void ExpectOthersLive() {
    NewGuest();
    Code({0xb8, 0x6e, 0, 0, 0, 0x0f, 0x05});
    ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
    EXPECT_EQ(regs_.SyscallNumber(), 110u);
  }

  std::unique_ptr<Platform> platform_;
  RefPtr<AddressSpace> space_;
  std::unique_ptr<Context> context_;
  int fd_ = -1;
  uint8_t* memory_ = nullptr;
  Registers regs_;
};

// Every byte of the trampoline, with arguments that would take it away. Whatever comes of it is the guest's own end or
// a call that the sentry sees; the trampoline stays.
TEST_F(SystrapTest, JumpsIntoTheTrampolineHarmOnlyTheGuest) {
  Code({0x0f, 0x05});
  for (uint64_t at = SYSTRAP_TEXT; at < SYSTRAP_TEXT + 1024; ++at) {
    NewGuest();
    regs_.gp.rip = at;
    regs_.gp.rax = SYS_munmap;
    regs_.gp.rdi = SYSTRAP_TEXT;
    regs_.gp.rsi = SYSTRAP_IMAGE_SIZE;
    regs_.gp.rbx = kData;
    regs_.gp.rbp = kData;
    regs_.gp.r12 = 1;
    regs_.gp.rcx = 16;  // a short stay in the loop at the mailbox
    regs_.gp.r15 = kData;
    for (int events = 0; events < 8; ++events) {
      Event e = Run();
      if (std::holds_alternative<ExitEvent>(e)) break;
      if (std::holds_alternative<FaultEvent>(e)) {
        regs_.gp.rip = kCode;
      } else if (!regs_.complete) {
        // The guest's own call: answered with an error, it runs on from there.
        regs_.SetReturn(-ENOSYS);
      } else {
        regs_.gp.rip = kCode;
      }
    }
  }
  ExpectOthersLive();
}

TEST_F(SystrapTest, PagesOfTheStubCannotBeWritten) {
  for (uint64_t page : {SYSTRAP_TEXT, SYSTRAP_FILTERS, SYSTRAP_COMMANDS}) {
    NewGuest();
    Code({0xc6, 0x07, 0x00});  // movb $0, (%rdi)
    regs_.gp.rdi = page;
    Event event = Run();
    ASSERT_TRUE(std::holds_alternative<FaultEvent>(event));
    EXPECT_EQ(std::get<FaultEvent>(event).address, page);
    EXPECT_EQ(std::get<FaultEvent>(event).error_code & 2, 2u);
  }
  NewGuest();
  Code({0xc6, 0x07, 0x00});
  regs_.gp.rdi = SYSTRAP_MAILBOX;
  Event event = Run();
  ASSERT_TRUE(std::holds_alternative<FaultEvent>(event));
  EXPECT_EQ(std::get<FaultEvent>(event).si_code, SEGV_MAPERR);
}

// Enter with registers that point elsewhere: a frame in guest memory, in another's area, at the end of the world.
TEST_F(SystrapTest, ForgedFramesEndTheGuest) {
  for (uint64_t frame : {uint64_t{0}, kData, uint64_t{SYSTRAP_AREAS}, SYSTRAP_AREAS + 64 * kAreaSize + kSignalStack,
                         ~uint64_t{0} - 100, uint64_t{SYSTRAP_AREAS} + kAreaSize - 8}) {
    NewGuest();
    Code({0x0f, 0x05});
    ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
    ASSERT_TRUE(context_->Complete(regs_).ok());
    regs_.gp.rip = EnterAddress() - 2;
    regs_.gp.rax = SYSTRAP_ENTER;
    regs_.gp.rdi = SIGSEGV;
    regs_.gp.rsi = frame;
    regs_.gp.rdx = frame;
    EXPECT_TRUE(std::holds_alternative<ExitEvent>(Run())) << std::hex << frame;
  }
  ExpectOthersLive();
}

// A store to a page that is shared for reading, answered with a copy: whether it is the one that the handler asks for,
// so that the host carries the thread's own call out, or another.
TEST_F(SystrapTest, CopiesOnWrite) {
  const uint64_t kPage = 4096, kCopy = 16 * kPage;
  for (uint64_t expected : {uint64_t{0}, kCopy, kCopy + kPage}) {
    NewGuest();
    memory_[kPage] = 7;
    memset(memory_ + kCopy, 1, kPage);
    space_->Map(kData, kPage, PROT_READ, true, fd_, kPage);
    if (expected != 0) context_->ExpectCopy(fd_, expected);
    Code({0xc6, 0x07, 0x09,        // movb $9, (%rdi)
          0x8a, 0x47, 0x01,        // mov 1(%rdi), %al
          0xc6, 0x47, 0x02, 0x08,  // movb $8, 2(%rdi)
          0x0f, 0x05});
    regs_.gp.rdi = kData;
    regs_.gp.rbx = 0x1234;
    regs_.gp.fs_base = 0x7000;
    Event event = Run();
    ASSERT_TRUE(std::holds_alternative<FaultEvent>(event));
    const FaultEvent& fault = std::get<FaultEvent>(event);
    EXPECT_EQ(fault.signo, SIGSEGV);
    EXPECT_EQ(fault.si_code, SEGV_ACCERR);
    EXPECT_EQ(fault.address, kData);
    EXPECT_EQ(fault.error_code & 2, 2u);
    EXPECT_EQ(regs_.gp.rip, kCode);
    EXPECT_EQ(regs_.gp.rbx, 0x1234u);
    EXPECT_EQ(regs_.gp.fs_base, 0x7000u);
    regs_.gp.rbx = 0x4321;  // what the sentry changes holds
    space_->Map(kData, kPage, PROT_READ | PROT_WRITE, true, fd_, kCopy);
    ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run())) << expected;
    ASSERT_TRUE(context_->Complete(regs_).ok());
    EXPECT_EQ(regs_.gp.rbx, 0x4321u);
    EXPECT_EQ(regs_.gp.fs_base, 0x7000u);
    EXPECT_EQ(memory_[kCopy], 9) << expected;
    EXPECT_EQ(memory_[kCopy + 2], 8);
    EXPECT_EQ(memory_[kPage], 7);
  }
  // A fault that is answered in no way, and the next one.
  NewGuest();
  space_->Map(kData, kPage, PROT_READ, true, fd_, kPage);
  context_->ExpectCopy(fd_, kCopy);
  Code({0xc6, 0x07, 0x09, 0x0f, 0x05});
  regs_.gp.rdi = kData;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(std::holds_alternative<FaultEvent>(Run()));
  EXPECT_EQ(memory_[kPage], 7);
}

// What is mapped over a range that was just unmapped takes its place, and no more than that of it.
TEST_F(SystrapTest, MapsOverWhatWasUnmapped) {
  constexpr GuestAddr kMany = kData + 0x10000;
  for (int page = 0; page < 4; ++page) memory_[0x2000 + page * 4096] = static_cast<uint8_t>(1 + page);
  space_->Map(kMany, 4 * 4096, PROT_READ, true, fd_, 0x2000);
  ASSERT_TRUE(space_->Flush(nullptr).ok());
  space_->Unmap(kMany + 4096, 4096);
  space_->Map(kMany + 4096, 4096, PROT_READ, true, fd_, 0x5000);  // just that
  ASSERT_TRUE(space_->Flush(nullptr).ok());
  space_->Unmap(kMany + 2 * 4096, 2 * 4096);
  space_->Map(kMany + 2 * 4096, 4096, PROT_READ, true, fd_, 0x2000);  // the first half
  const auto byte_at = [&](GuestAddr addr) {
    Code({0x8a, 0x07, 0x0f, 0x05});  // movb (%rdi), %al; syscall
    regs_ = {};
    regs_.gp.rip = kCode;
    regs_.gp.cs = 0x33;
    regs_.gp.ss = 0x2b;
    regs_.gp.eflags = 0x202;
    regs_.gp.rdi = addr;
    const Event event = Run();
    if (!std::holds_alternative<SyscallEvent>(event)) return -1;
    const int byte = static_cast<int>(regs_.SyscallNumber());
    EXPECT_TRUE(context_->Complete(regs_).ok());
    return byte;
  };
  EXPECT_EQ(byte_at(kMany), 1);
  EXPECT_EQ(byte_at(kMany + 4096), 4);
  EXPECT_EQ(byte_at(kMany + 2 * 4096), 1);
  EXPECT_EQ(byte_at(kMany + 3 * 4096), -1);
}

// The handler's mmap from guest code, with arguments of its own: what is not ordered does not happen.
TEST_F(SystrapTest, AForgedCopyMapsNothing) {
  for (uint64_t address : {uint64_t{SYSTRAP_TEXT}, kData}) {
    NewGuest();
    context_->ExpectCopy(fd_, 4096);
    memory_[8 * 4096] = 1;
    Code({0x0f, 0x05});
    regs_.gp.rip = CopyAddress() - 2;
    regs_.gp.rax = SYS_mmap;
    regs_.gp.rdi = address;
    regs_.gp.rsi = 4096;
    regs_.gp.rdx = PROT_READ | PROT_WRITE;
    regs_.gp.r10 = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    regs_.gp.r8 = static_cast<uint64_t>(fd_);
    regs_.gp.r9 = 8 * 4096;
    // There is no frame where the area's words point to.
    EXPECT_TRUE(std::holds_alternative<ExitEvent>(Run()));
  }
  ExpectOthersLive();
}

// rt_sigreturn from the trampoline is the one call that a guest thread makes without asking.
TEST_F(SystrapTest, AForgedSigreturnOnlyChangesTheGuestItself) {
  Code({0x0f, 0x05});
  regs_.gp.rip = SigreturnAddress() - 2;
  regs_.gp.rax = SYS_rt_sigreturn;
  regs_.gp.rsp = kData;  // zeros: a frame with rip 0
  memset(memory_ + 4096, 0, 4096);
  Event e = Run();
  EXPECT_FALSE(std::holds_alternative<SyscallEvent>(e));
  ExpectOthersLive();
}

TEST_F(SystrapTest, LegacyWaysInDoNotReachTheHost) {
  Code({0xb8, 0x14, 0, 0, 0, 0xcd, 0x80});  // int $0x80
  EXPECT_TRUE(std::holds_alternative<FaultEvent>(Run()));
  NewGuest();
  Code({0xb8, 0x27, 0, 0, 0x40, 0x0f, 0x05});  // x32's getpid
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(regs_.SyscallNumber(), 0x40000027u);
  NewGuest();
  regs_.gp.rip = 0xffffffffff600000;  // vsyscall gettimeofday
  *reinterpret_cast<uint64_t*>(memory_ + 8192 - 8) = kCode;
  regs_.gp.rsp = kData + 4096 - 8;
  Event e = Run();
  if (std::holds_alternative<SyscallEvent>(e)) {
    EXPECT_EQ(regs_.SyscallNumber(), uint64_t{SYS_gettimeofday});
  }
}

TEST_F(SystrapTest, SegmentBasesAreTheGuests) {
  Code({0xf3, 0x48, 0x0f, 0xae, 0xdf,  // wrgsbase %rdi
        0xf3, 0x48, 0x0f, 0xae, 0xd6,  // wrfsbase %rsi
        0x0f, 0x05});
  regs_.gp.rdi = 0x123456789000;
  regs_.gp.rsi = 0x7000;
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  ASSERT_TRUE(context_->Complete(regs_).ok());
  EXPECT_EQ(regs_.gp.gs_base, 0x123456789000u);
  EXPECT_EQ(regs_.gp.fs_base, 0x7000u);
}

TEST_F(SystrapTest, CompleteKeepsEveryRegisterAndTheResult) {
  Code({0x49, 0xbf, 1,    2, 3, 4,    5,    6,    7,   8,  // movabs, %r15
        0xb8, 0x6e, 0,    0, 0, 0x0f, 0x05,                // mov $110, %eax; syscall
        0x89, 0x04, 0x25, 0, 0, 0x50, 0,    0x0f, 0x05});
  regs_.gp.r14 = 0x1414;
  regs_.gp.rbp = 0xb0b0;
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  regs_.SetReturn(77);
  ASSERT_TRUE(context_->Complete(regs_).ok());
  EXPECT_EQ(regs_.Return(), 77);
  EXPECT_EQ(regs_.SyscallNumber(), 110u);
  EXPECT_EQ(regs_.gp.rip, kCode + 17);
  EXPECT_EQ(regs_.gp.r15, 0x0807060504030201u);
  EXPECT_EQ(regs_.gp.r14, 0x1414u);
  EXPECT_EQ(regs_.gp.rbp, 0xb0b0u);
  EXPECT_EQ(regs_.gp.rsp, kData + 4096);
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  EXPECT_EQ(*reinterpret_cast<int*>(memory_ + 4096), 77);
}

}  // namespace
}  // namespace moat::systrap_platform
