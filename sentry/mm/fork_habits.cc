#include "sentry/mm/fork_habits.h"

#include <algorithm>

namespace moat {

void ForkHabits::Note(GuestAddr page) {
  MutexLock lock(mu_);
  const auto at = std::lower_bound(pages_.begin(), pages_.end(), page);
  if (pages_.size() >= kMostPages || (at != pages_.end() && *at == page)) return;
  pages_.insert(at, page);
}

std::vector<GuestAddr> ForkHabits::OnFork() {
  MutexLock lock(mu_);
  if (++forks_ % kForksToForget == 0) pages_.clear();
  return pages_;
}

}  // namespace moat
