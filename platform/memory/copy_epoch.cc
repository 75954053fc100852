#include "platform/memory/copy_epoch.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace moat {

void CopyEpoch::Wait(uint64_t stamp) {
  // Sections are copies: most end within a microsecond, one that reads from a slow disk does not.
  constexpr int kSpins = 2000;
  for (int i = 0; !Reached(stamp); ++i) {
    if (i < kSpins) {
      __builtin_ia32_pause();
      continue;
    }
    uint32_t nobody_wakes = 0;
    const timespec nap{0, 50'000};
    syscall(SYS_futex, &nobody_wakes, FUTEX_WAIT_PRIVATE, 0, &nap, nullptr, 0);
  }
}

CopyEpoch& MemoryCopyEpoch() {
  static CopyEpoch epoch;
  return epoch;
}

}  // namespace moat
