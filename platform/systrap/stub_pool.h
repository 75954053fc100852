// StubPool: ready, empty stub processes and the areas of guest threads. A thread of its own orders stubs from the
// zygote and keeps a few ahead, so that a guest's fork or execve finds one waiting. Thread-safe. Lock: kStub.
#ifndef MOAT_PLATFORM_SYSTRAP_STUB_POOL_H_
#define MOAT_PLATFORM_SYSTRAP_STUB_POOL_H_

#include <atomic>
#include <memory>
#include <set>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"
#include "platform/fiber/parker.h"
#include "platform/fiber/thread.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/listener.h"

struct sock_fprog;

namespace moat::systrap_platform {

// Wakes everyone in other processes who waits on `word`: the page's last stub may have been killed and not be gone yet,
// and would be woken in place of the one that is meant.
void WakeShared(std::atomic<uint32_t>& word);

// A stub process that nothing runs in yet. Its agent and its first guest thread wait for an answer.
struct ReadyStub {
  pid_t pid = 0;
  uint32_t page = 0;  // its command page
  uint32_t area = 0;  // of its first guest thread
  Listener agent;
  Listener thread;
};

class StubPool {
 public:
  // Starts the zygote and the thread. Before the sentry's lockdown.
  static Result<std::unique_ptr<StubPool>> Create(const sock_fprog* filter);
  ~StubPool();

  // The first stub proves that all of it works here. Errors: as of Take.
  Result<void> AwaitFirst();
  // Waits for one if none is ready. kEAGAIN: the host makes no more processes; kESRCH: the zygote has died.
  Result<ReadyStub> Take();
  // Takes back a stub that came from Take, with nothing mapped and its thread at Enter. False: there are enough, the
  // caller still has it.
  bool GiveBack(ReadyStub& stub);
  // Ends a stub that came from Take. Its command page and first area can serve another from here on.
  void Kill(pid_t stub);
  // The same, and returns when none of its threads runs any more.
  void KillAndWait(pid_t stub);
  void FreePage(uint32_t page);

  // kEAGAIN: all are in use.
  Result<uint32_t> TakeArea();
  void FreeArea(uint32_t area);

  CommandPage& page(uint32_t index) const { return pages_[index + 1]; }
  Area& area(uint32_t index) const { return *reinterpret_cast<Area*>(areas_ + uint64_t{index} * kAreaSize); }
  static uint64_t AreaAddress(uint32_t index) { return SYSTRAP_AREAS + uint64_t{index} * kAreaSize; }
  int areas_fd() const { return areas_fd_.get(); }
  // Writes what sigaltstack(2) will read, and clears the rest.
  void PrepareArea(uint32_t index) const;
  // Waits until `word` of an area tells the descriptor of a new thread of `stub`, and for the thread's first call.
  // The word may be forged, so it is checked that the thread belongs to the stub. kEAGAIN: the host makes no more
  // threads or filters; kESRCH: the stub has died or lied.
  Result<Listener> AwaitThread(std::atomic<uint32_t>& word, pid_t stub) const;

  pid_t zygote_pid() const { return zygote_pid_; }

 private:
  static constexpr size_t kAhead = 4, kKeep = 16;
  static constexpr uint32_t kMaxStubs = 65'535;

  StubPool() = default;
  void Run();
  Result<ReadyStub> Make();
  Result<ReadyStub> Order(uint32_t page, uint32_t area);
  // Ends the zygote, and so all of the sandbox, when the host killed a stub whose guest waits inside of the sentry and
  // would never notice. A guest that runs notices by itself and has one period of time for it.
  void LookForDeadStubs();
  Mailbox& mailbox() const { return *reinterpret_cast<Mailbox*>(pages_); }

  pid_t zygote_pid_ = 0;
  ScopedFd pages_fd_;
  CommandPage* pages_ = nullptr;  // the mailbox, then kMaxStubs pages
  ScopedFd areas_fd_;
  std::byte* areas_ = nullptr;
  Parker parker_;  // the pool thread's
  HostThread thread_;

  Mutex mu_{LockRank::kStub};
  std::vector<ReadyStub> ready_ ABSL_GUARDED_BY(mu_);
  std::set<pid_t> in_use_ ABSL_GUARDED_BY(mu_);
  std::vector<pid_t> suspects_;  // the pool thread's: dead at the last look
  std::vector<uint32_t> free_pages_ ABSL_GUARDED_BY(mu_);
  uint32_t next_page_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<uint32_t> free_areas_ ABSL_GUARDED_BY(mu_);
  uint32_t next_area_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Parker*> waiters_ ABSL_GUARDED_BY(mu_);
  Errno failure_ ABSL_GUARDED_BY(mu_) = Errno::kOK;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_STUB_POOL_H_
