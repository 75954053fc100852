// MailboxDesk: one carrier of its own that looks at the mailboxes of many guest threads from a CPU where none of them
// runs. A call that comes there costs no host call and no context switch; but while the desk is open it burns its CPU,
// so it closes as soon as nobody calls. Who sits there and when: ListenPolicy.
//
// A fiber that waits for its guest thread's next call sits down: it is suspended until the desk has seen a call in the
// mailbox, or a notification, which the thread makes for everything else. The desk runs the fibers that it wakes, and
// those that they make ready; a fiber that wants to sleep in the host for its guest goes to the pool (ToPool).
//
// One per platform. Thread-safe, but a seat is its fiber's and, while that waits, the desk's.
#ifndef MOAT_PLATFORM_SYSTRAP_MAILBOX_DESK_H_
#define MOAT_PLATFORM_SYSTRAP_MAILBOX_DESK_H_

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <vector>

#include "platform/base/cpu_set.h"
#include "platform/base/mutex.h"
#include "platform/fiber/clock.h"
#include "platform/fiber/own_carrier.h"
#include "platform/systrap/guest_thread.h"

namespace moat {
class Fiber;
}

namespace moat::systrap_platform {

class MailboxDesk final : private OwnCarrier::Loop {
 public:
  enum class Came {
    kCall,    // GuestThread::call
    kNotice,  // GuestThread::Receive will tell
    // The fiber is in the pool, because
    kNothing,    // nobody has called for a while
    kPreempted,  // somebody else has the desk's CPU
    kSentAway    // the desk's carrier is about to wait for the host
  };
  struct Seat {
    GuestThread* thread = nullptr;
    bool woken = false;  // the thread is just being woken: it needs longer for its next call
    // Its task waits inside of the sentry: others have the desk meanwhile.
    void NotePark() { served_at = 0; }
    // Whether serving it took so long that others had to wait.
    bool TakeLongCall();

   private:
    friend class MailboxDesk;
    uint64_t served_at = 0;  // by the time stamp counter; 0: nobody had to wait
    MailboxDesk* desk = nullptr;
    Fiber* fiber = nullptr;
    bool silent = false;  // when the desk last looked for silent ones
    Came came = Came::kNothing;
  };

  // Starts the carrier: before the sentry's lockdown. kEAGAIN or kENOMEM when the host has no more threads.
  static Result<std::unique_ptr<MailboxDesk>> Create();
  ~MailboxDesk();

  // The CPUs for a new member's guest thread, which runs on the calling thread's now: all but the desk's. Nothing when
  // there is one CPU only.
  std::optional<CpuSet> Enter();
  void Leave() {
    members_.fetch_sub(1, std::memory_order_relaxed);
    SetActive(false);
  }
  // A member's task begins to wait inside of the sentry, or goes on.
  void SetActive(bool active) { active_.fetch_add(active ? 1 : -1, std::memory_order_relaxed); }
  int active() const { return active_.load(std::memory_order_relaxed); }
  bool IsOpen() const { return active() > 0; }
  // Other guest threads want the CPU of a member whose call takes long.
  bool IsShared() const { return active() > 1; }
  // A call came by notification that could come here. Whether such calls are so frequent in the sandbox that a desk
  // pays: more guest threads than CPUs, with more switches than work.
  bool NoteCall(Nanos now);

  // Waits, on a member's fiber, for what its guest thread does next.
  Came Wait(Seat& seat);
  // On the desk's carrier, a fiber that is no member's moves to the pool; elsewhere it stays.
  void ToPool();

 private:
  MailboxDesk() = default;
  bool LookForWork() override;
  // Nobody waits for a desk whose carrier waits for the host.
  void OnLongSleep(bool begins) override;
  static bool SitDown(void* seat);
  void TakeInbox();
  void Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Sleeps until somebody sits down. False: never again.
  bool Sleep();
  bool TakeCalls();
  // Asks the host about those that have been silent for a while.
  bool TakeNotices(Nanos now);
  bool IsSilent(Nanos now) const;
  // Who takes the desk's CPU are guests that will soon come here.
  bool IsCrowd(Nanos now) const;
  void Wake(size_t seat, Came came);
  void Close(Came why);

  const int cpus_ = HostThread::AllCpus().count();
  std::atomic<int> members_{0}, active_{0};
  // Sat down elsewhere than on the desk's carrier; the desk sleeps on the count.
  std::atomic<uint32_t> inbox_count_{0};
  std::atomic<bool> asleep_{false}, ending_{false};
  Mutex mu_{LockRank::kScheduler};
  std::vector<Seat*> inbox_ ABSL_GUARDED_BY(mu_);
  CpuSet guest_cpus_ ABSL_GUARDED_BY(mu_);
  bool settled_ ABSL_GUARDED_BY(mu_) = true;  // false: the desk has yet to come to its CPU, guest_cpus_ is the first's
  bool unwelcome_ ABSL_GUARDED_BY(mu_) = false;  // somebody else wants that CPU
  bool away_ ABSL_GUARDED_BY(mu_) = false;       // in a LongHostSleep
  // NoteCall's.
  std::atomic<uint32_t> noted_{0};
  std::atomic<Nanos> stamp_{0};
  std::atomic<bool> frequent_{false};
  // The desk's own.
  std::vector<Seat*> seats_;
  Nanos last_look_ = 0, last_call_ = 0, last_probe_ = 0;
  uint32_t looks_ = 0;
  size_t next_probed_ = 0;  // a place in seats_, or beyond
  OwnCarrier carrier_;      // the last member: ends before the others
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_MAILBOX_DESK_H_
