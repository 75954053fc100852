// ListenPolicy: when a guest thread's calls shall come by the mailbox (MailboxDesk) instead of by notification. A call
// there costs no host call, but the desk burns a CPU, whatever the thread does other than such calls is slower then,
// and to come and go takes tens of microseconds. So: only while calls come fast, for as long as it pays, and after a
// time that did not, later. One per context.
#ifndef MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_
#define MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_

#include <algorithm>
#include <cstdint>

#include "platform/fiber/clock.h"

namespace moat::systrap_platform {

class ListenPolicy {
 public:
  // A call came by notification, `gap` after the guest was let go. `frequent`: so do many that could come by the
  // mailbox. `members`: how many the desk is open for already, which costs no further CPU. True: join. Who stays away
  // from a crowd takes the desk's CPU, which all its members wait for.
  bool OnNotified(Nanos gap, bool frequent, int members);
  // The task waits inside of the sentry: the next calls say little.
  void OnPark() { near_ = -kCallsAfterPark; }

  // Of a member:
  void Begin();
  void OnMailbox() {
    credit_ = std::min(credit_ + 1, kMaxCredit);
    ++calls_;
  }
  // A fault, or a call that is not patched.
  void OnNotice() { credit_ -= kNoticeCost; }
  // The answer has to wake the guest thread: it makes long calls, or has waited for others (`shared`).
  void OnWakeUp(bool shared) {
    if (!shared) credit_ -= kWakeUpCost;
  }
  // It had the desk for itself for long; or somebody else had its CPU.
  void OnLongCall() {
    credit_ -= kLongCallCost;
    unlucky_ = true;
  }
  // It makes too few calls for all else that it does.
  bool IsOverdrawn() const { return credit_ < 0; }
  // It has left. `preempted`: somebody else has the desk's CPU.
  void End(bool preempted);
  // It was sent away for a moment, through no fault of its own.
  void OnSentAway() { near_ = 0; }

 private:
  static constexpr Nanos kNear = 2'000'000;  // a gap on a crowded machine
  static constexpr int kJoin = 4;            // calls in a row
  static constexpr int kCrowd = 2;           // members
  static constexpr int kCallsAfterPark = 12;
  static constexpr int kCallsAtFirst = 8;  // of a child that may be about to end
  // In place of both: who reads the pipe that a member fills takes the members' CPU, and less of it at the desk.
  static constexpr int kCallsWhereOpen = 1;
  // In calls that came by the mailbox, which each saved some 5 us.
  static constexpr int kCredit = 16, kMaxCredit = 64, kNoticeCost = 2, kWakeUpCost = 12, kLongCallCost = 8;
  static constexpr uint32_t kWorth = 12;                   // calls that make a membership pay
  static constexpr int kFirstPause = 64, kMaxPause = 256;  // calls
  // After one whose CPU was another's, or that does not fit what the thread does: the next will be the same.
  static constexpr int kMaxBadPause = 1 << 15;
  static constexpr int kCallsInCrowd = 64;  // of a pause, that a call counts for

  int near_ = -kCallsAtFirst;
  int credit_ = kCredit;
  uint32_t calls_ = 0;
  bool paid_ = false;     // the last time did
  bool unlucky_ = false;  // and if not, others may be to blame
  int pause_ = 0;         // calls to wait for before the next time
  int next_pause_ = kFirstPause;
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_LISTEN_POLICY_H_
