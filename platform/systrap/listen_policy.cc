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
  return ++streak_ >= (paid_ ? kShortStreak : kStreak) && HasRoom();
}

void ListenPolicy::Begin() {
  listening_ = true;
  calls_ = 0;
  patience_ = kWakePatience;
  last_look_ = 0;
  crowded_since_ = 0;
  preempted_ = false;
  streak_ = 0;
}

void ListenPolicy::OnArrival(Nanos took) { preempted_ = took > kPreempted; }

bool ListenPolicy::GiveUp(Nanos since, Nanos now) {
  if (last_look_ > since && now - last_look_ > kPreempted) preempted_ = true;
  last_look_ = now;
  if (HasRoom()) {
    crowded_since_ = 0;
  } else if (crowded_since_ == 0) {
    crowded_since_ = now;
  }
  const bool crowded = crowded_since_ != 0 && now - crowded_since_ > kCrowded;
  return preempted_ || crowded || now - since > patience_;
}

void ListenPolicy::End() {
  if (!listening_) return;
  listening_ = false;
  paid_ = calls_ >= kWorth && !preempted_;
  if (paid_) {
    next_pause_ = kFirstPause;
    pause_ = 0;
  } else {
    pause_ = next_pause_;
    next_pause_ = std::max(next_pause_, std::min(next_pause_ * 2, preempted_ ? kMaxBadPause : kMaxPause));
  }
}

}  // namespace moat::systrap_platform
