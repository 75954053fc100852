// The seccomp state of a task: a chain of filters, the newest first; shared with its children. Immutable.
// Source: seccomp(2).
#ifndef MOAT_SENTRY_KERNEL_SECCOMP_FILTER_H_
#define MOAT_SENTRY_KERNEL_SECCOMP_FILTER_H_

#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/registers.h"
#include "sentry/kernel/bpf.h"

namespace moat {

class Task;

class SeccompFilter : public RefCounted {
 public:
  SeccompFilter(std::vector<sock_filter> program, bool log, RefPtr<SeccompFilter> next)
      : program_(std::move(program)), next_(std::move(next)), log_(log) {
    total_ = program_.size() + 4 + (next_ ? next_->total_ : 0);
  }
  // The answer that counts: the one of highest precedence of all filters; of equals the newest one's.
  uint32_t Run(const seccomp_data& data) const;
  // Instructions of the chain, with the kernel's surcharge of 4 for each program.
  size_t total() const { return total_; }
  bool IsAncestorOf(const SeccompFilter* o) const;

 private:
  const std::vector<sock_filter> program_;
  const RefPtr<SeccompFilter> next_;
  const bool log_;
  size_t total_;
};

inline constexpr size_t kMaxSeccompInstructions = 32768;

// Decides on the system call in `t`'s registers. True: go on with the call. False: it was answered (or the task
// gets a signal, or ends). `result` is then what the call returns.
bool CheckSeccomp(Task& t, Result<int64_t>* result);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SECCOMP_FILTER_H_
