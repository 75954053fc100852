#include "platform/systrap/systrap_platform.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "platform/fiber/thread.h"
#include "platform/stub/rseq.h"
#include "platform/systrap/context.h"
#include "platform/systrap/decode.h"
#include "platform/systrap/extended_state.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace moat::systrap_platform {
namespace {

class SystrapPlatform final : public Platform {
 public:
  SystrapPlatform(std::unique_ptr<StubPool> pool, std::unique_ptr<MailboxDesk> desk)
      : pool_(std::move(pool)), desk_(std::move(desk)) {
    (void)stub::HostHasRseq();
  }

  std::string_view name() const override { return "systrap"; }
  Result<void> AwaitReady() override { return pool_->AwaitFirst(); }
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    return RefPtr<AddressSpace>(MakeRef<SystrapAddressSpace>(*pool_, TRY(pool_->Take()), shared_sites_));
  }
  Result<std::unique_ptr<Context>> NewContext() override {
    return std::unique_ptr<Context>(std::make_unique<SystrapContext>(*desk_));
  }
  GuestAddr min_address() const override { return kMinAddress; }
  GuestAddr max_address() const override { return kMaxAddress; }
  CallTables call_tables() const override {
    constexpr uint64_t kShared = SYSTRAP_TABLES + SYSTRAP_SHARED_SITES * TABLE_ENTRY - SYSTRAP_CPUID;
    return {SYSTRAP_CPUID, SYSTRAP_TABLES_END - SYSTRAP_CPUID, kShared};
  }
  CodePatcher* code_patcher() override { return &shared_sites_; }
  bool pins_carrier() const override { return false; }
  int zygote_pid() const override { return pool_->zygote_pid(); }

 private:
  SharedSites shared_sites_;
  std::unique_ptr<StubPool> pool_;
  std::unique_ptr<MailboxDesk> desk_;
};

}  // namespace

std::string WhyUnavailable() {
  // A notified call that a signal interrupts must not be restarted after its answer: fixed in 6.17 ("seccomp: Fix a
  // race with WAIT_KILLABLE_RECV if the tracer replies too fast"). No probe can tell.
  utsname host;
  int major = 0, minor = 0;
  uname(&host);
  if (sscanf(host.release, "%d.%d", &major, &minor) != 2 || major < 6 || (major == 6 && minor < 17)) {
    return std::string("systrap: needs Linux 6.17 or newer, this is ") + host.release;
  }
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) != 0) {
    return "systrap: this host kernel has no seccomp user notification";
  }
  if ((getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) == 0) {
    return "systrap: the CPU or the host kernel lacks the FSGSBASE instructions";
  }
  if (ExtendedStateSize() == 0) return "systrap: the CPU lacks XSAVE";
  if (getauxval(AT_MINSIGSTKSZ) + 1024 > kAreaSize - kSignalStack) {
    return "systrap: signal frames of this CPU are larger than a guest thread's area";
  }
  return "";
}

Result<std::unique_ptr<Platform>> Create(const PlatformOptions& options) {
  constexpr uint8_t kCode[] = {0xc3, 0x90, 0x90};
  (void)FindPaddings(kCode, 0);
  // The zygote first: a process cloned while other threads run may find the C library's locks taken.
  std::unique_ptr<StubPool> pool = TRY(StubPool::Create(options.stub_filter));
  std::unique_ptr<MailboxDesk> desk = TRY(MailboxDesk::Create());
  return std::unique_ptr<Platform>(std::make_unique<SystrapPlatform>(std::move(pool), std::move(desk)));
}

}  // namespace moat::systrap_platform
