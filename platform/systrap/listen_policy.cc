#include "platform/systrap/listen_policy.h"

namespace moat::systrap_platform {

bool ListenPolicy::OnNotified(Nanos gap, bool frequent, int members) {
  const bool open = members > 0, crowd = members >= kCrowd;
  if (pause_ > 0 && !(crowd && unlucky_)) {
    pause_ -= crowd ? kCallsInCrowd : 1;
    return false;
  }
  if (open) near_ = std::max(near_, -kCallsWhereOpen);
  near_ = gap <= kNear ? near_ + 1 : std::min(near_, 0);
  return near_ >= (open ? 1 : kJoin) && (open || frequent || paid_);
}

void ListenPolicy::Begin() {
  credit_ = kCredit;
  calls_ = 0;
  unlucky_ = false;
}

void ListenPolicy::End(bool preempted) {
  const bool bad = preempted || IsOverdrawn();
  unlucky_ |= preempted;
  near_ = 0;
  paid_ = calls_ >= kWorth && !bad;
  if (paid_) {
    next_pause_ = kFirstPause;
    pause_ = 0;
    return;
  }
  pause_ = next_pause_;
  next_pause_ = std::max(next_pause_, std::min(next_pause_ * 2, bad ? kMaxBadPause : kMaxPause));
}

}  // namespace moat::systrap_platform
