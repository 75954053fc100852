// ListenPolicy: when a carrier looks at its guest thread's mailbox from another CPU instead of sleeping until the next
// call. A look costs the guest no system call, but burns a CPU: so only while calls come fast, while a CPU is to spare,
// and for as long as it pays; after a session that did not, the next is longer in coming. One per context.
#ifndef MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_
#define MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_

#include <cstdint>

#include "platform/fiber/clock.h"

namespace moat::systrap_platform {

class ListenPolicy {
 public:
  // `cpus`: that the sandbox may use.
  explicit ListenPolicy(int cpus) : cpus_(cpus) {}

  bool listening() const { return listening_; }
  // A call came by notification, `gap` after the guest was let go.
  // True: start a session.
  bool OnNotified(Nanos gap);
  void Begin();
  // The carrier has come to its CPU `took` after it set out.
  void OnArrival(Nanos took);
  // A call came by the mailbox.
  void OnMailbox() {
    ++calls_;
    patience_ = kPatience;
  }
  // The answer has to wake the guest thread, which waited too long for it.
  void OnWakeUp() { patience_ = kWakePatience; }
  // Asked while nothing comes: since when, and the time now. True: the session ends.
  bool GiveUp(Nanos since, Nanos now);
  // It has ended: nothing came, or the fiber leaves its carrier.
  void End();

 private:
  static constexpr Nanos kFastGap = 12'000;   // of a notified call: most of it is the switch itself
  static constexpr int kStreak = 24;          // fast calls in a row before a session
  static constexpr int kShortStreak = 4;      // after a session that paid
  static constexpr Nanos kPatience = 40'000;  // a look without a call
  // Where the thread's CPU may have gone to sleep too: tens of microseconds to wake.
  static constexpr Nanos kWakePatience = 200'000;
  // Without a CPU to spare. Shorter is a reader that takes what our guest has written and waits again.
  static constexpr Nanos kCrowded = 400'000;
  static constexpr Nanos kPreempted = 150'000;             // between two looks: the CPU was not ours alone
  static constexpr int kWorth = 12;                        // calls that make a session pay
  static constexpr int kFirstPause = 64, kMaxPause = 256;  // fast calls
  // After a session whose CPU was another's too: to move there took milliseconds, and so will the next time.
  static constexpr int kMaxBadPause = 1 << 15;

  // Every fiber that runs could have a CPU for its guest thread and one for its carrier.
  bool HasRoom() const;

  const int cpus_;
  bool listening_ = false;
  int streak_ = 0;
  bool paid_ = false;  // the last session
  int pause_ = 0;      // fast calls to wait for beyond kStreak
  int next_pause_ = kFirstPause;
  uint32_t calls_ = 0;  // in this session
  Nanos patience_ = kWakePatience;
  Nanos last_look_ = 0;
  Nanos crowded_since_ = 0;
  bool preempted_ = false;  // somebody else wants the CPU
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_
