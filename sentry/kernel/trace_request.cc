#include "sentry/kernel/trace_request.h"

#include <sys/ptrace.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/trace_link.h"

namespace moat {
namespace {

constexpr int kEventShift = 8;

}  // namespace

Result<StoppedTracee> StoppedTracee::Hold(Task& tracer, RefPtr<Task> tracee) {
  MutexLock tree(tracer.kernel().tree_mutex());
  MutexLock lock(tracee->thread_group_->signal_mu_);
  TraceState& s = tracee->trace_;
  if (s.tracer != &tracer || !s.in_stop || s.listening || s.fatal) return kESRCH;
  // A tracee that an exec has given its leader's id, which the tracer does not know yet: most likely it means the old
  // leader.
  if (s.code == (PTRACE_EVENT_EXEC << kEventShift | SIGTRAP) &&
      s.message != static_cast<uint64_t>(tracee->TidIn(*tracer.pid_ns())))
    return kESRCH;
  s.frozen = true;
  return StoppedTracee(std::move(tracee));
}

void StoppedTracee::Release() {
  if (!tracee_) return;
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  tracee_->trace_.frozen = false;
  if (tracee_->trace_.fatal) tracee_->parker_.Unpark();
}

Result<SigInfo> StoppedTracee::Info() const {
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  if (!tracee_->trace_.has_info) return kEINVAL;
  return tracee_->trace_.info;
}

Result<void> StoppedTracee::SetInfo(const SigInfo& info) const {
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  if (!tracee_->trace_.has_info) return kEINVAL;
  tracee_->trace_.info = info;
  return {};
}

uint64_t StoppedTracee::message() const {
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  return tracee_->trace_.message;
}

SignalSet StoppedTracee::Mask() const {
  return tracee_->signals_.has_saved_mask ? tracee_->signals_.saved_mask : tracee_->signal_mask();
}

void StoppedTracee::SetMask(SignalSet mask) const {
  tracee_->signals_.has_saved_mask = false;
  tracee_->SetSignalMask(mask);
}

std::vector<SigInfo> StoppedTracee::Pending(bool shared, uint64_t from, size_t count) const {
  std::vector<SigInfo> out;
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  const PendingSignals& pending = shared ? tracee_->thread_group_->shared_pending_ : tracee_->signals_.pending;
  for (const QueuedSignal* q = pending.first(); q != nullptr && out.size() < count; q = q->next) {
    if (from != 0) {
      --from;
    } else {
      out.push_back(q->info);
    }
  }
  return out;
}

void StoppedTracee::SetOptions(uint32_t options) const {
  MutexLock lock(tracee_->thread_group_->signal_mu_);
  tracee_->trace_.options = options;
}

void StoppedTracee::Resume(uint32_t flags, int signo) {
  RefPtr<Task> tracee = std::move(tracee_);
  MutexLock lock(tracee->thread_group_->signal_mu_);
  TraceState& s = tracee->trace_;
  s.frozen = false;
  s.flags.store(TraceState::kTraced | flags, std::memory_order_relaxed);
  s.code = signo;
  s.in_stop = false;
  tracee->parker_.Unpark();
}

void StoppedTracee::Detach(int signo) {
  RefPtr<Task> tracee = std::move(tracee_);
  TraceLink::Detach(*tracee, signo);
}

Result<void> StoppedTracee::Listen() {
  RefPtr<Task> tracee = std::move(tracee_);
  MutexLock lock(tracee->thread_group_->signal_mu_);
  TraceState& s = tracee->trace_;
  s.frozen = false;
  if (s.fatal) tracee->parker_.Unpark();
  if (!s.seized || !s.has_info || s.info.si_code >> kEventShift != PTRACE_EVENT_STOP) return kEIO;
  s.listening = true;
  if (!s.notify) return {};
  // What there is to be heard has come already.
  s.in_stop = false;
  tracee->parker_.Unpark();
  return {};
}

}  // namespace moat
