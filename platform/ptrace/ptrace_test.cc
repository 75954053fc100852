// What is peculiar to stubs under ptrace; platform/platform_test.cc tests the rest.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "platform/base/log.h"
#include "platform/ptrace/ptrace_platform.h"
#include "platform/stub/layout.h"

namespace moat {
namespace {

constexpr GuestAddr kCode = 0x400000;
constexpr GuestAddr kData = 0x500000;

class PtraceTest : public testing::Test {
 protected:
  PtraceTest() {
    SetLog(2, LogLevel::kWarning);
    auto platform = ptrace_platform::Create({});
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
  ~PtraceTest() override {
    context_->Release();
    context_.reset();
    space_.reset();
    munmap(memory_, 1 << 20);
    close(fd_);
  }
  void Code(std::initializer_list<uint8_t> bytes, size_t at = 0) { memcpy(memory_ + at, bytes.begin(), bytes.size()); }
  uint8_t* data() { return memory_ + 4096; }
  Event Run() { return context_->Switch(*space_, regs_); }

  std::unique_ptr<Platform> platform_;
  RefPtr<AddressSpace> space_;
  std::unique_ptr<Context> context_;
  int fd_;
  uint8_t* memory_;
  Registers regs_;
};

TEST_F(PtraceTest, TheTrampolineIsNotTheGuestsToUse) {
  const stub::Entries& e = stub::TrampolineEntries();
  Code({0x0f, 0x05});
  ASSERT_TRUE(std::holds_alternative<SyscallEvent>(Run()));
  // Jumps to each entry: what runs there are the guest's own system calls, or faults.
  for (uint64_t entry : {e.syscall, e.batch, e.clone_thread, e.clone_process, e.idle, e.exit, e.zygote}) {
    Registers r = regs_;
    r.gp.rip = entry;
    r.gp.rax = SYS_munmap;
    r.gp.rdi = stub::kText;
    r.gp.rsi = 4096;
    r.gp.r12 = 1;
    r.gp.rbx = kData;
    Event event = context_->Switch(*space_, r);
    EXPECT_FALSE(std::holds_alternative<ExitEvent>(event)) << std::hex << entry;
  }
  // Writes to its pages fault.
  for (uint64_t page : {stub::kText, stub::kCommands}) {
    Code({0xc6, 0x07, 0x00});  // movb $0, (%rdi)
    Registers r = regs_;
    r.gp.rip = kCode;
    r.gp.rdi = page;
    Event event = context_->Switch(*space_, r);
    ASSERT_TRUE(std::holds_alternative<FaultEvent>(event));
    EXPECT_EQ(std::get<FaultEvent>(event).address, page);
  }
}

}  // namespace
}  // namespace moat
