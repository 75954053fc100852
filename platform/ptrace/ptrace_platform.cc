#include "platform/ptrace/ptrace_platform.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/ptrace/context.h"
#include "platform/stub/rseq.h"

namespace moat::ptrace_platform {
namespace {

class PtracePlatform final : public Platform {
 public:
  explicit PtracePlatform(std::unique_ptr<StubPool> pool) {
    shared_.pool = std::move(pool);
    (void)stub::HostHasRseq();
  }

  std::string_view name() const override { return "ptrace"; }
  Result<RefPtr<AddressSpace>> NewAddressSpace() override {
    ReadyStub stub = TRY(shared_.pool->Take());
    return RefPtr<AddressSpace>(MakeRef<PtraceAddressSpace>(*shared_.pool, stub));
  }
  Result<std::unique_ptr<Context>> NewContext() override {
    return std::unique_ptr<Context>(std::make_unique<PtraceContext>(shared_));
  }
  GuestAddr min_address() const override { return stub::kMinAddress; }
  GuestAddr max_address() const override { return stub::kStubBase; }
  bool pins_carrier() const override { return true; }
  int zygote_pid() const override { return shared_.pool->zygote_pid(); }

 private:
  SharedState shared_;
};

}  // namespace

std::string WhyUnavailable() {
  // Tries what the platform does: trace a child of ours with PTRACE_SYSEMU.
  pid_t pid = fork();
  if (pid < 0) return "ptrace: cannot make a process to try it on";
  if (pid == 0) {
    for (;;) pause();
  }
  std::string why;
  if (ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) != 0) {
    why =
        "ptrace: this process may not trace its own children (seccomp profile, yama ptrace_scope 3, or a nested "
        "sandbox)";
  } else {
    int status;
    ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr);
    waitpid(pid, &status, __WALL);
    if (ptrace(static_cast<__ptrace_request>(31), pid, nullptr, nullptr) != 0) {
      why = "ptrace: this host kernel has no PTRACE_SYSEMU";
    }
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, __WALL);
  return why;
}

Result<std::unique_ptr<Platform>> Create(const PlatformOptions& options) {
  return std::unique_ptr<Platform>(std::make_unique<PtracePlatform>(TRY(StubPool::Create(options.stub_filter))));
}

}  // namespace moat::ptrace_platform
