// Random bytes for guests and for layout randomisation: a ChaCha20 generator, seeded from the host before the
// sentry's lockdown and re-keyed after every request (fast key erasure), so that it needs no host call.
// Thread-safe. Lock: kLeaf.
#ifndef MOAT_SENTRY_KERNEL_RANDOM_H_
#define MOAT_SENTRY_KERNEL_RANDOM_H_

#include <cstddef>
#include <cstdint>

namespace moat {

// Reads the seed with getrandom(2). Aborts if the host gives none. Call once before the lockdown.
void SeedRandom();
void FillRandom(void* out, size_t n);
uint64_t RandomU64();

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_RANDOM_H_
