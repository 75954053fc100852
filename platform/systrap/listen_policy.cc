#include "platform/systrap/listen_policy.h"

#include <algorithm>

#include "platform/fiber/load.h"

namespace moat::systrap_platform {

bool ListenPolicy::HasRoom() const { return RunningFibers() * 2 <= cpus_; }

bool ListenPolicy::OnNotified(Nanos gap) {
  if (gap > kFastGap) {
    streak_ = 0;
    return false;
  }
  if (pause_ > 0) {
    --pause_;
    return false;
  }
  return ++streak_ >= kStreak && HasRoom();
}

void ListenPolicy::Begin() {
  listening_ = true;
  calls_ = 0;
  last_look_ = 0;
  crowded_since_ = 0;
  streak_ = 0;
}

bool ListenPolicy::GiveUp(Nanos since, Nanos now) {
  const bool preempted = last_look_ > since && now - last_look_ > kPreempted;
  last_look_ = now;
  if (HasRoom()) {
    crowded_since_ = 0;
  } else if (crowded_since_ == 0) {
    crowded_since_ = now;
  }
  const bool crowded = crowded_since_ != 0 && now - crowded_since_ > kCrowded;
  return preempted || crowded || now - since > (calls_ == 0 ? kFirstPatience : kPatience);
}

void ListenPolicy::End() {
  if (!listening_) return;
  listening_ = false;
  if (calls_ >= kWorth) {
    next_pause_ = kFirstPause;
    pause_ = 0;
  } else {
    pause_ = next_pause_;
    next_pause_ = std::min(next_pause_ * 2, kMaxPause);
  }
}

}  // namespace moat::systrap_platform
