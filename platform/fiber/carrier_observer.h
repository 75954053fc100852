// Where the calling thread's observer is kept. Internal to platform/fiber.
#ifndef MOAT_PLATFORM_FIBER_CARRIER_OBSERVER_H_
#define MOAT_PLATFORM_FIBER_CARRIER_OBSERVER_H_

#include "platform/fiber/fiber.h"

namespace moat {

// The one that SetCarrierObserver gave this thread, or null.
CarrierObserver* CurrentCarrierObserver();

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_CARRIER_OBSERVER_H_
