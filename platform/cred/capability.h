// Capability sets. Source: capabilities(7). Constants (CAP_*) come from <linux/capability.h>.
#ifndef MOAT_PLATFORM_CRED_CAPABILITY_H_
#define MOAT_PLATFORM_CRED_CAPABILITY_H_

#include <linux/capability.h>

#include <cstdint>

namespace moat {

struct CapabilitySet {
  uint64_t bits = 0;
  static constexpr CapabilitySet All() { return {(uint64_t{1} << (CAP_LAST_CAP + 1)) - 1}; }
  static constexpr CapabilitySet None() { return {0}; }
  constexpr bool Has(int cap) const { return (bits >> cap) & 1; }
  constexpr CapabilitySet With(int cap) const { return {bits | (uint64_t{1} << cap)}; }
  constexpr CapabilitySet Without(int cap) const { return {bits & ~(uint64_t{1} << cap)}; }
  constexpr CapabilitySet operator&(CapabilitySet o) const { return {bits & o.bits}; }
  constexpr CapabilitySet operator|(CapabilitySet o) const { return {bits | o.bits}; }
  constexpr bool IsSubsetOf(CapabilitySet o) const { return (bits & ~o.bits) == 0; }
  constexpr bool operator==(const CapabilitySet&) const = default;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_CRED_CAPABILITY_H_
