// GuestClock: keeps what guests read the time from without a system call (the vDSO's clock page) true.
#ifndef MOAT_SENTRY_MM_GUEST_CLOCK_H_
#define MOAT_SENTRY_MM_GUEST_CLOCK_H_

#include "platform/base/ref_ptr.h"

namespace moat {

class GuestClock : public RefCounted {
 public:
  // To be called when a guest asks for the time by a system call: the page was out of date. Cheap; thread-safe.
  virtual void Refresh() = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_GUEST_CLOCK_H_
