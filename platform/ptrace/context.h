// PtraceContext: a guest thread under ptrace. See Context in platform/platform.h.
#ifndef MOAT_PLATFORM_PTRACE_CONTEXT_H_
#define MOAT_PLATFORM_PTRACE_CONTEXT_H_

#include <optional>

#include "platform/platform.h"
#include "platform/ptrace/address_space.h"
#include "platform/ptrace/placement.h"
#include "platform/ptrace/tracee.h"

namespace moat::ptrace_platform {

// What all contexts of the platform share.
struct SharedState {
  std::unique_ptr<StubPool> pool;
  Placement placement;
};

class PtraceContext final : public Context {
 public:
  explicit PtraceContext(SharedState& shared) : shared_(shared), seat_(shared.placement) {}
  ~PtraceContext() override;

  Event Switch(AddressSpace& as, Registers& regs) override;
  Result<void> Complete(Registers&) override { return {}; }  // always is
  void Interrupt() override;
  void SetAffinity(const CpuSet& cpus) override { seat_.Restrict(cpus); }
  Result<void> SetRseq(const RseqArea& area) override;
  Result<ExtendedState> GetExtendedState() override;
  Result<void> SetExtendedState(const ExtendedState& state) override;
  void ResetExtendedState() override;
  Result<std::unique_ptr<Context>> Clone(bool same_space) override;
  void Release() override;

  // --- for PtraceAddressSpace ---
  bool BoundTo(const PtraceAddressSpace& as) const { return space_ == &as && tracee_.attached(); }
  Tracee& tracee() { return tracee_; }
  bool InGuest() const { return in_guest_.load(std::memory_order_seq_cst); }
  // Makes a running Switch look at its address space's queue. Any thread.
  void Kick();

 private:
  Result<void> Bind(PtraceAddressSpace& as);
  void Unbind();
  // Ends the thread that Clone made for this context when it is not going to run there.
  void DropSpare();
  // Ends the whole stub through `tracee_`, its last thread, and reaps it.
  void KillStub();
  Event Classify(int status, Registers& regs, bool& resume);
  ExitEvent Died(int status);

  SharedState& shared_;
  Seat seat_;
  Tracee tracee_;
  RefPtr<PtraceAddressSpace> space_;
  RseqArea rseq_;           // what the guest thread shall have; tracee_.rseq() is what it has
  pid_t spare_thread_ = 0;  // made by Clone(same_space) in spare_space_, not yet attached
  RefPtr<PtraceAddressSpace> spare_space_;
  std::optional<ExtendedState> new_state_;  // to be loaded at the next Bind

  std::atomic<bool> in_guest_{false};
  std::atomic<bool> interrupt_{false};
  // For Kick and Interrupt from other threads; 0 while unbound.
  std::atomic<pid_t> tgid_{0}, tid_{0};
};

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_CONTEXT_H_
