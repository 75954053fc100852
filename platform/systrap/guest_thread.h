// GuestThread: one stub thread that runs guest code. While the sentry has it, it is either stopped in a call of its own
// (the sentry knows the call's arguments and gives a result), or in the trampoline with all its registers saved in a
// signal frame in its area (the sentry reads and changes them there).
// Used by one carrier at a time. The area is writable by the guest: whatever is read from it is copied once and
// checked.
#ifndef MOAT_PLATFORM_SYSTRAP_GUEST_THREAD_H_
#define MOAT_PLATFORM_SYSTRAP_GUEST_THREAD_H_

#include <signal.h>

#include "platform/platform.h"
#include "platform/registers.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/listener.h"

namespace moat::systrap_platform {

class GuestThread {
 public:
  // `listener` holds the thread's first call, Enter.
  GuestThread(Listener listener, Area& area, uint64_t address)
      : listener_(std::move(listener)), area_(area), address_(address) {}

  pid_t tid() const { return tid_; }
  // For a thread that nobody will use as this object any more.
  Listener TakeListener() { return std::move(listener_); }
  // True when all registers are in the frame; false when the thread is in a call of its own.
  bool HasFrame() const { return frame_ != 0; }
  const seccomp_data& call() const { return in_mailbox_ ? mailbox_call_ : listener_.call(); }
  // With a frame, after a store that faulted: the call is an mmap of one page, which may be what the fault takes.
  bool in_copy() const { return in_copy_; }
  // Where the next such call puts its page.
  void ExpectCopy(int fd, int64_t offset) {
    area_.copy_fd = static_cast<uint32_t>(fd);
    area_.copy_offset = offset;
  }
  // The call came by the mailbox: the host does not know of it.
  bool in_mailbox() const { return in_mailbox_; }
  // The call was answered when the thread was about to sleep: the next Receive wakes it.
  bool falls_asleep() const { return falls_asleep_; }
  // The thread is in a call that the host knows of and could carry out: the guest's own, or that of in_copy.
  bool InHostCall() const { return in_copy_ || (!HasFrame() && !in_mailbox_); }

  // Gives the thread a frame with `state` as its extended state, whatever it did before; the registers are to be
  // stored before it is resumed. The thread is new, or stopped with a frame.
  void MakeFrame(const ExtendedState& state);

  // A result for a thread in a call, Enter included. kESRCH: the thread is gone.
  Result<void> Return(int64_t value);
  // The host carries the thread's call out. In a call of the guest's, its result is the call's; in_copy, the thread
  // then goes on with what is stored in its frame, or comes back if the host could not.
  Result<void> CarryOut();
  // For a thread with a frame: on with what is stored there. kESRCH: the thread is gone.
  Result<void> Resume();
  // Waits until the sentry has the thread again. kESRCH: it is gone, or has broken its frame.
  Result<void> Wait();
  // Waits for what the host tells of the thread. False: only that it fell asleep, and it has been woken.
  Result<bool> Receive();
  // Before the thread goes on: its next call may come by the mailbox.
  void AnnounceListening() { area_.listening.store(1, std::memory_order_seq_cst); }
  // Whether a call has come to the mailbox.
  bool TakeFromMailbox();
  // The answer to its call of the mailbox will take long: it sleeps at once.
  void LetSleep();
  // Whether Receive would not wait; see Listener::HasCall.
  bool HasNotice() const { return listener_.HasCall(); }
  // Readable when there is one.
  int listener_fd() const { return listener_.fd(); }
  // For a thread in a mailbox call that has been kicked: waits for its frame. kESRCH as Wait.
  Result<void> WaitForFrame();

  // A thread whose frame came by the mailbox tells of it by notification, so that it can serve whoever comes next.
  // kESRCH as Wait.
  Result<void> LeaveMailbox();

  // What patched call sites answer.
  void Publish(const CallerIdentity& identity);
  void Withdraw() { area_.answers.store(0, std::memory_order_release); }

  // Registers the thread with the host kernel for restartable sequences, or ends that. In a call of its own that says
  // the same (IsRseqCall) it is enough to let it go on; else it needs a frame. kESRCH: the thread is gone, or does not
  // do as it is told.
  Result<void> SetRseq(const RseqArea& area);
  bool IsRseqCall(const RseqArea& area) const;
  void NoteRseq(const RseqArea& area) { rseq_ = area; }
  const RseqArea& rseq() const { return rseq_; }

  // The signal that made the frame; only after a Wait that came back with one.
  const siginfo_t& info() const { return info_; }
  uint64_t trapno() const { return trapno_; }
  uint64_t error_code() const { return error_code_; }

  // For CallSites::Rewind.
  Area& area() { return area_; }

  // All of these need a frame.
  Result<void> LoadRegisters(user_regs_struct& regs) const;
  // kEINVAL: values that the CPU cannot hold.
  Result<void> StoreRegisters(const user_regs_struct& regs);
  Result<ExtendedState> LoadExtendedState() const;
  // kEINVAL: the CPU would not accept it.
  Result<void> StoreExtendedState(const ExtendedState& state);

 private:
  bool IsSleep() const;
  bool IsEnter() const;
  // The thread's Enter, past its falling asleep over the mailbox. kESRCH: it is gone, makes another call, or none
  // within `patience` seconds (0: as long as it takes).
  Result<void> ReceiveEnter(int patience = 0);
  Result<void> ReadEvent();
  Result<void> ReadFrameOfEnter(const seccomp_data& enter);
  Result<void> ReadFrame(int signo, uint64_t info, uint64_t frame, uint64_t fs_base, uint64_t gs_base);
  // What the trampoline needs for the way back to the frame.
  void SetWayBack();
  template <typename T>
  bool ReadArea(uint64_t address, T& out) const;
  template <typename T>
  bool WriteArea(uint64_t address, const T& value);
  Result<void> CallRseq(const RseqArea& area, uint32_t flags);
  // In the sentry's own mapping; null when the range is not within the signal stack.
  std::byte* At(uint64_t address, uint64_t size) const;

  Listener listener_;
  seccomp_data mailbox_call_{};
  bool in_mailbox_ = false;
  bool in_copy_ = false;
  bool sleeping_ = false;  // in SYSTRAP_SLEEP, to be answered with the mailbox's call
  bool falls_asleep_ = false;
  Area& area_;
  const uint64_t address_;  // of the area, in the stub
  const pid_t tid_ = listener_.tid();
  uint64_t frame_ = 0;  // stub address of the ucontext
  uint64_t fs_base_ = 0, gs_base_ = 0;
  RseqArea rseq_;
  siginfo_t info_{};
  uint64_t trapno_ = 0, error_code_ = 0;
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_GUEST_THREAD_H_
