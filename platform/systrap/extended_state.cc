#include "platform/systrap/extended_state.h"

#include <cpuid.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "platform/abi/signal.h"

namespace moat::systrap_platform {
namespace {

constexpr uint64_t kX87AndSse = 3;
// AMX tile data: a thread has it only after it has asked the kernel (ARCH_REQ_XCOMP_PERM), which guests cannot.
constexpr uint64_t kDynamic = uint64_t{1} << 18;
constexpr size_t kHeader = abi::kFxsaveSize;  // XSTATE_BV, XCOMP_BV, reserved
constexpr size_t kHeaderSize = 64;
constexpr size_t kMxcsr = 24, kMxcsrMask = 28;
constexpr uint32_t kDefaultMxcsrMask = 0xffbf;

struct Shape {
  uint64_t features = 0;
  size_t size = 0;
};

const Shape& TheShape() {
  static const Shape shape = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    Shape s;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return s;
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    s.features = (uint64_t{high} << 32 | low) & ~kDynamic;
    s.size = kHeader + kHeaderSize;
    for (uint64_t rest = s.features & ~kX87AndSse; rest != 0; rest &= rest - 1) {
      __cpuid_count(0xd, static_cast<unsigned>(std::countr_zero(rest)), a, b, c, d);
      s.size = std::max<size_t>(s.size, size_t{a} + b);
    }
    return s;
  }();
  return shape;
}

uint32_t MxcsrMask() {
  static const uint32_t mask = [] {
    alignas(16) uint8_t area[abi::kFxsaveSize] = {};
    asm volatile("fxsave %0" : "=m"(area));
    uint32_t m;
    memcpy(&m, area + kMxcsrMask, sizeof m);
    return m != 0 ? m : kDefaultMxcsrMask;
  }();
  return mask;
}

}  // namespace

size_t ExtendedStateSize() { return TheShape().size; }

ExtendedState InitialExtendedState() {
  ExtendedState state(TheShape().size);
  constexpr uint16_t kFcw = 0x37f;
  constexpr uint32_t kInitialMxcsr = 0x1f80;
  memcpy(&state[0], &kFcw, sizeof kFcw);
  memcpy(&state[kMxcsr], &kInitialMxcsr, sizeof kInitialMxcsr);
  memcpy(&state[kHeader], &kX87AndSse, sizeof kX87AndSse);  // all others in their initial state
  return state;
}

Result<void> PrepareForFrame(ExtendedState& state) {
  const Shape& shape = TheShape();
  if (state.size() != shape.size) return kEINVAL;
  uint64_t header[kHeaderSize / 8];
  memcpy(header, &state[kHeader], sizeof header);
  if ((header[0] & ~shape.features) != 0) return kEINVAL;
  for (size_t i = 1; i < std::size(header); ++i) {
    if (header[i] != 0) return kEINVAL;
  }
  uint32_t mxcsr;
  memcpy(&mxcsr, &state[kMxcsr], sizeof mxcsr);
  if ((mxcsr & ~MxcsrMask()) != 0) return kEINVAL;
  const abi::FpxSwBytes sw = {abi::kFpXstateMagic1,
                              static_cast<uint32_t>(shape.size + sizeof(uint32_t)),
                              shape.features,
                              static_cast<uint32_t>(shape.size),
                              {}};
  memcpy(&state[abi::kFpxSwOffset], &sw, sizeof sw);
  const auto* magic = reinterpret_cast<const uint8_t*>(&abi::kFpXstateMagic2);
  state.insert(state.end(), magic, magic + sizeof abi::kFpXstateMagic2);
  return {};
}

}  // namespace moat::systrap_platform
