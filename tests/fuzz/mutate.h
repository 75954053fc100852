// Mutate changes bytes of a sample: flips, overwrites with edges, deletions, insertions, copies of its own pieces.
// Deterministic by seed.
#ifndef MOAT_TESTS_FUZZ_MUTATE_H_
#define MOAT_TESTS_FUZZ_MUTATE_H_

#include <algorithm>
#include <random>
#include <string>

namespace moat {

inline std::string Mutate(const std::string& sample, std::mt19937_64& random) {
  std::string s = sample;
  const auto below = [&](size_t n) { return n == 0 ? 0 : static_cast<size_t>(random() % n); };
  for (size_t changes = 1 + below(6); changes > 0; --changes) {
    const size_t at = below(s.size());
    switch (below(6)) {
      case 0:
        if (!s.empty()) s[at] = static_cast<char>(s[at] ^ (1 << below(8)));
        break;
      case 1: {
        static const uint64_t kEdges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fffffff, 0xffffffff, 0x7fffffffffffffff, ~0ull};
        const uint64_t edge = kEdges[below(9)];
        const size_t width = size_t{1} << below(4);
        for (size_t i = 0; i < width && at + i < s.size(); ++i) s[at + i] = static_cast<char>(edge >> (8 * i));
        break;
      }
      case 2:
        s.erase(at, 1 + below(16));
        break;
      case 3:
        s.insert(at, std::string(1 + below(16), static_cast<char>(random())));
        break;
      case 4:
        s.insert(at, s.substr(below(s.size()), 1 + below(64)));
        break;
      default:
        s.resize(std::min(s.size(), below(s.size() * 2)));
    }
  }
  return s;
}

}  // namespace moat

#endif  // MOAT_TESTS_FUZZ_MUTATE_H_
