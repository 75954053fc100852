// SystrapContext: a guest thread whose calls arrive as seccomp notifications. See Context in platform/platform.h.
#ifndef MOAT_PLATFORM_SYSTRAP_CONTEXT_H_
#define MOAT_PLATFORM_SYSTRAP_CONTEXT_H_

#include <atomic>
#include <memory>
#include <optional>

#include "platform/base/mutex.h"
#include "platform/fiber/fiber.h"
#include "platform/platform.h"
#include "platform/systrap/address_space.h"
#include "platform/systrap/guest_thread.h"
#include "platform/systrap/listen_policy.h"
#include "platform/systrap/mailbox_desk.h"

namespace moat::systrap_platform {

class SystrapContext final : public Context, private CarrierObserver {
 public:
  // `desk` must outlive the context.
  explicit SystrapContext(MailboxDesk& desk) : desk_(desk) {}
  ~SystrapContext() override;

  Event Switch(AddressSpace& as, Registers& regs) override;
  Result<void> Complete(Registers& regs) override;
  uint64_t identity_generation() override { return identity_generation_.load(std::memory_order_acquire); }
  void Publish(const CallerIdentity& identity, uint64_t generation) override;
  void Withdraw() override;
  void ExpectCopy(int fd, uint64_t offset) override;
  void TakeCalls(absl::FunctionRef<void(GuestAddr behind, uint32_t number, uint32_t calls)> visit) override;
  void Interrupt() override;
  void SetAffinity(const CpuSet& cpus) override;
  Result<void> SetRseq(const RseqArea& area) override;
  Result<ExtendedState> GetExtendedState() override;
  Result<void> SetExtendedState(const ExtendedState& state) override;
  void ResetExtendedState() override;
  Result<std::unique_ptr<Context>> Clone(bool same_space) override;
  void Release() override;

  // Whether the thread's own call is all that is queued in `as`: it is carried out when the thread goes on.
  bool CanCarryOut(SystrapAddressSpace& as) const {
    return space_ == &as && thread_ != nullptr && thread_->InHostCall() && as.IsJust(thread_->call());
  }

 private:
  Result<void> Bind(SystrapAddressSpace& as);
  // Forgets the stub thread, which is gone or broken, or belongs to the address space again.
  std::unique_ptr<GuestThread> DropThread();
  // Gives the stub thread back, in a state in which it can serve again if others still run in the space.
  void Unbind();
  ExitEvent Died();
  // Lets the thread go on with `regs`. kEINVAL: values that the CPU cannot hold.
  Result<void> Go(Registers& regs);
  // Waits for the thread, at the desk or by notification. kESRCH: it is gone.
  Result<void> Wait();
  Result<void> WaitAtDesk();
  // The thread's next calls may come to the desk; it keeps to the CPUs of the desk's members.
  bool JoinDesk();
  void LeaveDesk(MailboxDesk::Came why = MailboxDesk::Came::kNothing);
  // The task waits inside of the sentry.
  void OnPark() override;
  void OnUnpark() override;
  // The event behind a frame, or nothing for an interrupt.
  std::optional<Event> Classify(Registers& regs);
  // Makes the thread come to its handler at its next instruction.
  void Kick();
  // Lets the thread run on these CPUs only. A thread that is gone: nothing to do.
  void Pin(const CpuSet& cpus);

  RefPtr<SystrapAddressSpace> space_;
  std::unique_ptr<GuestThread> thread_;     // of space_
  std::optional<ExtendedState> new_state_;  // for the frame that Bind makes
  RseqArea rseq_;                           // what the guest thread shall have; thread_->rseq() is what it has
  int copy_fd_ = -1;                        // see ExpectCopy
  int64_t copy_offset_ = -1;

  // Counts calls of one instruction. Of those that share a slot, the one that calls more often stays.
  struct HotSite {
    GuestAddr ip = 0;
    uint32_t calls = 0, number = 0;
  };
  MailboxDesk& desk_;
  ListenPolicy policy_;
  bool observing_ = false;  // its fiber's sleeps
  bool join_next_ = false;
  bool at_desk_ = false;  // a member
  MailboxDesk::Seat seat_;
  static constexpr size_t kHotSites = 64;  // a power of two
  static constexpr uint32_t kHotCalls = 16;
  bool CountCall(GuestAddr ip, uint32_t number);
  HotSite hot_[kHotSites];

  std::atomic<bool> in_guest_{false};
  std::atomic<bool> interrupt_{false};
  // For Interrupt from other threads; 0 while unbound.
  std::atomic<pid_t> tgid_{0}, tid_{0};
  std::atomic<uint64_t> identity_generation_{0};
  // Holds thread_ in its place for other threads: while tid_ is not 0 it is this context's.
  Mutex affinity_mu_{LockRank::kLeaf};
  bool kept_on_cpus_ ABSL_GUARDED_BY(affinity_mu_) = false;  // those of the desk's members
  CpuSet affinity_ ABSL_GUARDED_BY(affinity_mu_);            // empty: wherever the sandbox may run
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CONTEXT_H_
