#include "sentry/mm/commit_account.h"

namespace moat {

uint64_t CommitAccount::limit() const {
  return total_ / 100 * static_cast<uint64_t>(ratio_.load(std::memory_order_relaxed));
}

Result<void> CommitAccount::Charge(uint64_t bytes) {
  const Mode mode = this->mode();
  if (mode == Mode::kHeuristic && bytes > total_) return kENOMEM;
  const uint64_t before = committed_.fetch_add(bytes, std::memory_order_relaxed);
  if (mode == Mode::kNever && before + bytes > limit()) {
    Uncharge(bytes);
    return kENOMEM;
  }
  return {};
}

}  // namespace moat
