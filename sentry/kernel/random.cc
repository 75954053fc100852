#include "sentry/kernel/random.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "platform/base/log.h"
#include "platform/base/mutex.h"

namespace moat {
namespace {

// RFC 8439, section 2.3. `key` 8 words, a 64-bit counter, no nonce: the key changes with every request.
void ChaChaBlock(const uint32_t key[8], uint64_t counter, uint32_t out[16]) {
  uint32_t in[16] = {0x61707865,
                     0x3320646e,
                     0x79622d32,
                     0x6b206574,
                     key[0],
                     key[1],
                     key[2],
                     key[3],
                     key[4],
                     key[5],
                     key[6],
                     key[7],
                     static_cast<uint32_t>(counter),
                     static_cast<uint32_t>(counter >> 32),
                     0,
                     0};
  uint32_t x[16];
  memcpy(x, in, sizeof x);
  auto quarter = [&x](int a, int b, int c, int d) {
    x[a] += x[b];
    x[d] = std::rotl(x[d] ^ x[a], 16);
    x[c] += x[d];
    x[b] = std::rotl(x[b] ^ x[c], 12);
    x[a] += x[b];
    x[d] = std::rotl(x[d] ^ x[a], 8);
    x[c] += x[d];
    x[b] = std::rotl(x[b] ^ x[c], 7);
  };
  for (int i = 0; i < 10; ++i) {
    quarter(0, 4, 8, 12);
    quarter(1, 5, 9, 13);
    quarter(2, 6, 10, 14);
    quarter(3, 7, 11, 15);
    quarter(0, 5, 10, 15);
    quarter(1, 6, 11, 12);
    quarter(2, 7, 8, 13);
    quarter(3, 4, 9, 14);
  }
  for (int i = 0; i < 16; ++i) out[i] = x[i] + in[i];
}

Mutex seed_mutex{LockRank::kLeaf};
uint32_t seed_key[8] ABSL_GUARDED_BY(seed_mutex);
bool seeded ABSL_GUARDED_BY(seed_mutex) = false;

// A fresh key for one request; the generator's own key is replaced in the same step.
void TakeKey(uint32_t key[8]) {
  MutexLock lock(seed_mutex);
  MOAT_CHECK(seeded);
  uint32_t block[16];
  ChaChaBlock(seed_key, 0, block);
  memcpy(seed_key, block, sizeof seed_key);
  memcpy(key, block + 8, sizeof seed_key);
}

}  // namespace

void SeedRandom() {
  MutexLock lock(seed_mutex);
  MOAT_CHECK(getrandom(seed_key, sizeof seed_key, 0) == static_cast<ssize_t>(sizeof seed_key));
  seeded = true;
}

void FillRandom(void* out, size_t n) {
  uint32_t key[8], block[16];
  TakeKey(key);
  auto* at = static_cast<std::byte*>(out);
  for (uint64_t counter = 0; n != 0; ++counter) {
    ChaChaBlock(key, counter, block);
    size_t piece = std::min(n, sizeof block);
    memcpy(at, block, piece);
    at += piece;
    n -= piece;
  }
  explicit_bzero(key, sizeof key);
  explicit_bzero(block, sizeof block);
}

uint64_t RandomU64() {
  uint64_t v;
  FillRandom(&v, sizeof v);
  return v;
}

}  // namespace moat
