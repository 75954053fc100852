// SystrapContext: a guest thread whose calls arrive as seccomp notifications. See Context in platform/platform.h.
#ifndef MOAT_PLATFORM_SYSTRAP_CONTEXT_H_
#define MOAT_PLATFORM_SYSTRAP_CONTEXT_H_

#include <atomic>
#include <memory>
#include <optional>

#include "platform/base/mutex.h"
#include "platform/platform.h"
#include "platform/systrap/address_space.h"
#include "platform/systrap/guest_thread.h"

namespace moat::systrap_platform {

class SystrapContext final : public Context {
 public:
  SystrapContext() = default;
  ~SystrapContext() override;

  Event Switch(AddressSpace& as, Registers& regs) override;
  Result<void> Complete(Registers& regs) override;
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
    return space_ == &as && thread_ != nullptr && !thread_->HasFrame() && as.IsJust(thread_->call());
  }

 private:
  Result<void> Bind(SystrapAddressSpace& as);
  // Gives the stub thread back, in a state in which it can serve again if others still run in the space.
  void Unbind();
  ExitEvent Died();
  // Lets the thread go on with `regs`. kEINVAL: values that the CPU cannot hold.
  Result<void> Go(Registers& regs);
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

  std::atomic<bool> in_guest_{false};
  std::atomic<bool> interrupt_{false};
  // For Interrupt from other threads; 0 while unbound.
  std::atomic<pid_t> tgid_{0}, tid_{0};
  Mutex affinity_mu_{LockRank::kLeaf};
  CpuSet affinity_ ABSL_GUARDED_BY(affinity_mu_);  // empty: wherever the sandbox may run
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CONTEXT_H_
