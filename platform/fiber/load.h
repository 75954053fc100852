// How busy the pooled carriers are.
#ifndef MOAT_PLATFORM_FIBER_LOAD_H_
#define MOAT_PLATFORM_FIBER_LOAD_H_

namespace moat {

// Pooled fibers that run, or whose guest thread does, at this moment: neither suspended nor waiting for a carrier. One
// whose guest is served by an OwnCarrier runs only while it is served. Thread-safe.
int RunningFibers();

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_LOAD_H_
