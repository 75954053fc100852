#include "platform/systrap/operation_queue.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cstring>

namespace moat::systrap_platform {
namespace {

uint64_t Start(const Command& c) { return c.args[0]; }
uint64_t End(const Command& c) { return c.args[0] + c.args[1]; }

}  // namespace

void OperationQueue::Push(const Command& c, bool later) {
  if (may_wait_ && c.number == SYS_munmap && Cut(c)) return;
  may_wait_ = later && (commands_.empty() || may_wait_);
  if (!Join(c)) commands_.push_back(c);
}

bool OperationQueue::Cut(const Command& unmap) {
  const auto around = std::find_if(commands_.begin(), commands_.end(),
                                   [&](const Command& c) { return Start(c) <= Start(unmap) && End(unmap) <= End(c); });
  if (around == commands_.end()) return false;
  Command behind = *around;
  behind.args[0] = End(unmap);
  behind.args[1] = End(*around) - End(unmap);
  behind.args[5] += behind.args[0] - Start(*around);
  around->args[1] = Start(unmap) - Start(*around);
  const bool front_left = around->args[1] != 0;
  if (behind.args[1] == 0) {
    if (!front_left) commands_.erase(around);
  } else if (front_left) {
    commands_.insert(around + 1, behind);
  } else {
    *around = behind;
  }
  may_wait_ = !commands_.empty();
  return true;
}

bool OperationQueue::Join(const Command& c) {
  if (commands_.empty()) return false;
  Command& last = commands_.back();
  // What is mapped over what was just unmapped replaces it (MAP_FIXED).
  if (c.number == SYS_mmap && last.number == SYS_munmap && Start(last) >= Start(c) && End(last) <= End(c)) {
    last = c;
    return true;
  }
  const bool adjacent = last.number == c.number && End(last) == Start(c);
  const bool same_unmap = c.number == SYS_munmap;
  const bool same_protect = c.number == SYS_mprotect && last.args[2] == c.args[2];
  const bool same_map = c.number == SYS_mmap && last.args[2] == c.args[2] && last.args[3] == c.args[3] &&
                        last.args[4] == c.args[4] && last.args[5] + last.args[1] == c.args[5];
  if (!adjacent || !(same_unmap || same_protect || same_map)) return false;
  last.args[1] += c.args[1];
  return true;
}

int OperationQueue::Take(Command* to, int most) {
  const int n = static_cast<int>(std::min<size_t>(commands_.size(), static_cast<size_t>(most)));
  if (n == 0) return 0;
  memcpy(to, commands_.data(), static_cast<size_t>(n) * sizeof(Command));
  commands_.erase(commands_.begin(), commands_.begin() + n);
  may_wait_ = false;
  return n;
}

void OperationQueue::Clear() {
  commands_.clear();
  may_wait_ = false;
}

}  // namespace moat::systrap_platform
