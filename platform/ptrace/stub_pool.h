// StubPool: ready, empty stub processes. A thread of its own owns the zygote and keeps a few stubs ahead, so that a
// guest's fork or execve finds one waiting. Thread-safe. Lock: kStub.
#ifndef MOAT_PLATFORM_PTRACE_STUB_POOL_H_
#define MOAT_PLATFORM_PTRACE_STUB_POOL_H_

#include <memory>
#include <set>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"
#include "platform/fiber/parker.h"
#include "platform/fiber/thread.h"
#include "platform/ptrace/tracee.h"
#include "platform/stub/layout.h"

struct sock_fprog;

namespace moat::ptrace_platform {

// A stub process that nothing runs in yet. Its command page is `commands` for the sentry.
struct ReadyStub {
  pid_t pid = 0;
  uint32_t page = 0;
  stub::Command* commands = nullptr;
};

class StubPool {
 public:
  // Starts the zygote and the thread. Before the sentry's lockdown.
  static Result<std::unique_ptr<StubPool>> Create(const sock_fprog* filter);
  ~StubPool();

  // Waits for one if none is ready. kEAGAIN: the host makes no more processes; kESRCH: the zygote has died.
  Result<ReadyStub> Take();
  // Its user is about to kill it: its death is no surprise from here on.
  void Forget(pid_t stub);
  // The stub is dead: its command page can serve another.
  void Return(uint32_t page);
  pid_t zygote_pid() const { return zygote_pid_; }

 private:
  static constexpr size_t kAhead = 4;
  static constexpr uint32_t kMaxStubs = 65'536;

  StubPool() = default;
  void Run();
  stub::Command* CommandsAt(uint32_t page) const;
  Result<ReadyStub> Make();
  // Ends the zygote, and so all of the sandbox, when the host killed a stub whose guest waits inside of the sentry and
  // would never notice. A guest that runs notices by itself and has one period of time for it.
  void LookForDeadStubs();

  pid_t zygote_pid_ = 0;
  ScopedFd commands_fd_;
  stub::Command* commands_ = nullptr;  // kMaxStubs pages
  Tracee zygote_;                      // the pool thread's
  Parker parker_;                      // the pool thread's
  HostThread thread_;

  Mutex mu_{LockRank::kStub};
  std::vector<ReadyStub> ready_ ABSL_GUARDED_BY(mu_);
  std::set<pid_t> in_use_ ABSL_GUARDED_BY(mu_);
  std::vector<pid_t> suspects_;  // the pool thread's: dead at the last look
  std::vector<uint32_t> free_pages_ ABSL_GUARDED_BY(mu_);
  uint32_t next_page_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Parker*> waiters_ ABSL_GUARDED_BY(mu_);
  Errno failure_ ABSL_GUARDED_BY(mu_) = Errno::kOK;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_STUB_POOL_H_
