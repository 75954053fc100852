// ForkHabits: pages that parent or child store to soon after a fork, as a shell's stack and heap. Who forks again and
// again finds the same ones: fork copies them for the child at once, which costs a microsecond each, where the faults
// of both would cost twenty. Shared by a process and those that it forked, until they execute another program.
// Thread-safe. Lock: kLeaf.
#ifndef MOAT_SENTRY_MM_FORK_HABITS_H_
#define MOAT_SENTRY_MM_FORK_HABITS_H_

#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

class ForkHabits : public RefCounted {
 public:
  // How many stores after a fork are noted, of the parent and of each child.
  static constexpr int kNotedStores = 16;

  void Note(GuestAddr page);
  // At a fork: the pages, in order. Now and then they are forgotten, because nobody sees whether a copy that was made
  // ahead was of use.
  std::vector<GuestAddr> OnFork();

 private:
  static constexpr size_t kMostPages = 32;
  static constexpr int kForksToForget = 64;

  Mutex mu_{LockRank::kLeaf};
  std::vector<GuestAddr> pages_ ABSL_GUARDED_BY(mu_);  // sorted
  int forks_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_FORK_HABITS_H_
