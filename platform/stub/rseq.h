// Restartable sequences of guest threads, which the host kernel carries out for both platforms: rseq(2).
#ifndef MOAT_PLATFORM_STUB_RSEQ_H_
#define MOAT_PLATFORM_STUB_RSEQ_H_

#include <cstdint>

namespace moat::stub {

// The length that threads are registered with: of the first ABI, which has all fields that Linux fills today.
inline constexpr uint64_t kRseqLength = 32;

// Whether the host has the call. Asks it the first time: before the sentry's lockdown.
bool HostHasRseq();

}  // namespace moat::stub

#endif  // MOAT_PLATFORM_STUB_RSEQ_H_
