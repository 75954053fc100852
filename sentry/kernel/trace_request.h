// The tracer's side of ptrace(2). A StoppedTracee is the caller's tracee, held in its stop for the length of one
// request: its registers and extended state are the holder's, and no SIGKILL takes it away meanwhile.
// Everything is called by the tracer itself, without locks. Source: ptrace(2).
#ifndef MOAT_SENTRY_KERNEL_TRACE_REQUEST_H_
#define MOAT_SENTRY_KERNEL_TRACE_REQUEST_H_

#include <vector>

#include "sentry/kernel/thread_group.h"

namespace moat {

class StoppedTracee {
 public:
  // kESRCH: `tracee` is not one of `tracer`'s, or not in a stop.
  static Result<StoppedTracee> Hold(Task& tracer, RefPtr<Task> tracee);
  ~StoppedTracee() { Release(); }
  StoppedTracee(StoppedTracee&& o) noexcept : tracee_(std::move(o.tracee_)) {}
  StoppedTracee(const StoppedTracee&) = delete;
  StoppedTracee& operator=(const StoppedTracee&) = delete;

  Task& task() const { return *tracee_; }
  user_regs_struct& regs() const { return tracee_->regs_.gp; }
  // Empty: not known. Whoever changes it says so.
  ExtendedState& extended() const { return tracee_->trace_.extended; }
  void ExtendedChanged() const { tracee_->trace_.extended_changed = true; }
  TraceState& state() const { return tracee_->trace_; }

  Result<SigInfo> Info() const;  // kEINVAL: the stop has none
  Result<void> SetInfo(const SigInfo& info) const;
  uint64_t message() const;
  SignalSet Mask() const;
  void SetMask(SignalSet mask) const;
  // The queue's entries from `from` on, at most `count`.
  std::vector<SigInfo> Pending(bool shared, uint64_t from, size_t count) const;
  void SetOptions(uint32_t options) const;

  // These end the hold. Resume: `flags` of TraceState::Flag besides kTraced, `signo` 0 or a signal.
  void Resume(uint32_t flags, int signo);
  void Detach(int signo);
  // PTRACE_LISTEN. kEIO: not in a stop of that kind.
  Result<void> Listen();

 private:
  explicit StoppedTracee(RefPtr<Task> tracee) : tracee_(std::move(tracee)) {}
  void Release();

  RefPtr<Task> tracee_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TRACE_REQUEST_H_
