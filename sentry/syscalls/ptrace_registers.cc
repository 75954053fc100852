#include "sentry/syscalls/ptrace_registers.h"

#include <cpuid.h>
#include <elf.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "platform/abi/signal.h"

namespace moat {
namespace {

constexpr uint64_t kUserEnd = (uint64_t{1} << 47) - kPageSize;  // TASK_SIZE_MAX
// What a tracer may change: CF, PF, AF, ZF, SF, TF, DF, OF, NT, RF, AC.
constexpr uint64_t kFlagMask =
    1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 18;
// DR6 is kept with the bits flipped that are one when nothing has happened.
constexpr uint64_t kStatusReserved = 0xffff0ff0;
constexpr uint64_t kEnableBits = 0xff;  // of DR7
constexpr uint64_t kX87 = 1, kSse = 2, kAvx = 4;
constexpr size_t kMxcsr = 24, kX87Registers = 32, kXmm = 160, kXmmEnd = 416;
constexpr size_t kHeader = abi::kFxsaveSize, kHeaderSize = 64;
constexpr uint32_t kInitialMxcsr = 0x1f80, kMxcsrMask = 0xffff;
constexpr uint16_t kInitialFcw = 0x37f;

uint64_t Word(const ExtendedState& state, size_t at) {
  uint64_t v;
  memcpy(&v, &state[at], sizeof v);
  return v;
}
bool IsExtended(const ExtendedState& state) { return state.size() >= kHeader + kHeaderSize; }

// Where a component lies in the standard form.
struct Component {
  size_t offset = 0, size = 0;
};
Component ComponentOf(int feature) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(0xd, static_cast<unsigned>(feature), &a, &b, &c, &d) == 0) return {};
  return {b, a};
}

// The features that the state has room for, which stand in it in one of two ways: as ptrace(2) and as a signal frame
// has them.
uint64_t FeaturesOf(const ExtendedState& state) {
  abi::FpxSwBytes sw;
  memcpy(&sw, &state[abi::kFpxSwOffset], sizeof sw);
  if (sw.magic1 == abi::kFpXstateMagic1 && sw.xfeatures != 0) return sw.xfeatures;
  uint64_t features = Word(state, abi::kFpxSwOffset);
  if (features != 0) return features;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d) == 0) return kX87 | kSse;
  features = uint64_t{d} << 32 | a;
  for (uint64_t rest = features & ~(kX87 | kSse); rest != 0; rest &= rest - 1) {
    const Component part = ComponentOf(std::countr_zero(rest));
    if (part.offset + part.size > state.size()) features &= ~(rest & -rest);
  }
  return features;
}

// Components in their initial state have its values, and software's bytes are those of ptrace(2).
std::vector<uint8_t> Canonical(const ExtendedState& raw) {
  std::vector<uint8_t> out = raw;
  if (!IsExtended(raw)) return out;
  const uint64_t features = FeaturesOf(raw), present = Word(raw, kHeader);
  if ((present & kX87) == 0) {
    std::fill(out.begin(), out.begin() + kMxcsr, uint8_t{0});
    std::fill(out.begin() + kX87Registers, out.begin() + kXmm, uint8_t{0});
    memcpy(&out[0], &kInitialFcw, sizeof kInitialFcw);
  }
  if ((present & kSse) == 0) std::fill(out.begin() + kXmm, out.begin() + kXmmEnd, uint8_t{0});
  if ((present & (kSse | kAvx)) == 0) memcpy(&out[kMxcsr], &kInitialMxcsr, sizeof kInitialMxcsr);
  std::fill(out.begin() + kXmmEnd, out.begin() + kHeader, uint8_t{0});
  memcpy(&out[abi::kFpxSwOffset], &features, sizeof features);
  for (uint64_t rest = features & ~present & ~(kX87 | kSse); rest != 0; rest &= rest - 1) {
    const Component part = ComponentOf(std::countr_zero(rest));
    if (part.offset < kHeader + kHeaderSize || part.offset + part.size > out.size()) continue;
    memset(&out[part.offset], 0, part.size);
  }
  return out;
}

bool ValidMxcsr(std::span<const uint8_t> bytes) {
  uint32_t mxcsr;
  memcpy(&mxcsr, &bytes[kMxcsr], sizeof mxcsr);
  return (mxcsr & ~kMxcsrMask) == 0;
}

Result<void> SetFxsave(const StoppedTracee& tracee, std::span<const uint8_t> bytes) {
  ExtendedState& state = tracee.extended();
  if (state.size() < abi::kFxsaveSize) return kEIO;
  if (bytes.size() != abi::kFxsaveSize || !ValidMxcsr(bytes)) return kEINVAL;
  // The rest of what is initial stays so; these two are not any more.
  if (IsExtended(state)) {
    const uint64_t present = Word(state, kHeader) | kX87 | kSse;
    memcpy(&state[kHeader], &present, sizeof present);
  }
  memcpy(state.data(), bytes.data(), kXmmEnd);
  tracee.ExtendedChanged();
  return {};
}

Result<void> SetXstate(const StoppedTracee& tracee, std::span<const uint8_t> bytes) {
  ExtendedState& state = tracee.extended();
  if (!IsExtended(state)) return kEIO;
  if (bytes.size() != state.size()) return kEFAULT;
  uint64_t header[kHeaderSize / 8];
  memcpy(header, &bytes[kHeader], sizeof header);
  if ((header[0] & ~FeaturesOf(state)) != 0) return kEINVAL;
  if (std::any_of(header + 1, std::end(header), [](uint64_t word) { return word != 0; })) return kEINVAL;
  if (!ValidMxcsr(bytes)) return kEINVAL;
  uint8_t own[sizeof(abi::FpxSwBytes)];
  memcpy(own, &state[abi::kFpxSwOffset], sizeof own);
  std::copy(bytes.begin(), bytes.end(), state.begin());
  memcpy(&state[abi::kFpxSwOffset], own, sizeof own);
  tracee.ExtendedChanged();
  return {};
}

Result<void> SetGeneral(const StoppedTracee& tracee, uint64_t offset, uint64_t value) {
  user_regs_struct& regs = tracee.regs();
  uint64_t old;
  memcpy(&old, reinterpret_cast<const std::byte*>(&regs) + offset, sizeof old);
  switch (offset) {
    case offsetof(user_regs_struct, cs):
    case offsetof(user_regs_struct, ss):
    case offsetof(user_regs_struct, ds):
    case offsetof(user_regs_struct, es):
    case offsetof(user_regs_struct, fs):
    case offsetof(user_regs_struct, gs):
      // Guests run in 64-bit mode with the selectors that they start with.
      if ((value & 0xffff) != old) return kEIO;
      return {};
    case offsetof(user_regs_struct, fs_base):
    case offsetof(user_regs_struct, gs_base):
      if (value >= kUserEnd) return kEIO;
      break;
    case offsetof(user_regs_struct, eflags):
      value = (old & ~kFlagMask) | (value & kFlagMask);
      break;
    default:
      break;
  }
  memcpy(reinterpret_cast<std::byte*>(&regs) + offset, &value, sizeof value);
  return {};
}

Result<void> SetDebugRegister(const StoppedTracee& tracee, uint64_t n, uint64_t value) {
  TraceState& s = tracee.state();
  constexpr uint64_t kAddresses = 4, kStatus = 6, kControl = 7;
  if (n < kAddresses) {
    if (value >= kUserEnd) return kEINVAL;
    s.debug_address[n] = value;
    return {};
  }
  if (n == kStatus) {
    s.debug_status = value ^ kStatusReserved;
    return {};
  }
  if (n != kControl) return kEIO;
  return (value & kEnableBits) == 0 ? Result<void>() : kENOSPC;
}

uint64_t DebugRegister(const StoppedTracee& tracee, uint64_t n) {
  constexpr uint64_t kAddresses = 4, kStatus = 6;
  if (n < kAddresses) return tracee.state().debug_address[n];
  return n == kStatus ? tracee.state().debug_status ^ kStatusReserved : 0;
}

bool IsDebugRegister(uint64_t offset) {
  return offset >= abi::kUserDebugRegisters && offset < abi::kUserDebugRegisters + abi::kDebugRegisters * 8;
}

}  // namespace

Result<uint64_t> PeekUser(const StoppedTracee& tracee, uint64_t offset) {
  if (offset % 8 != 0 || offset >= abi::kUserSize) return kEIO;
  if (offset < sizeof(abi::UserRegs)) {
    uint64_t value;
    memcpy(&value, reinterpret_cast<const std::byte*>(&tracee.regs()) + offset, sizeof value);
    return value;
  }
  if (IsDebugRegister(offset)) return DebugRegister(tracee, (offset - abi::kUserDebugRegisters) / 8);
  return uint64_t{0};
}

Result<void> PokeUser(const StoppedTracee& tracee, uint64_t offset, uint64_t value) {
  if (offset % 8 != 0 || offset >= abi::kUserSize) return kEIO;
  if (offset < sizeof(abi::UserRegs)) return SetGeneral(tracee, offset, value);
  if (IsDebugRegister(offset)) return SetDebugRegister(tracee, (offset - abi::kUserDebugRegisters) / 8, value);
  return kEIO;
}

Result<std::vector<uint8_t>> GetRegisterSet(const StoppedTracee& tracee, uint64_t type) {
  switch (type) {
    case NT_PRSTATUS: {
      const auto* bytes = reinterpret_cast<const uint8_t*>(&tracee.regs());
      return std::vector<uint8_t>(bytes, bytes + sizeof(abi::UserRegs));
    }
    case NT_PRFPREG: {
      if (tracee.extended().size() < abi::kFxsaveSize) return kEIO;
      std::vector<uint8_t> state = Canonical(tracee.extended());
      state.resize(abi::kFxsaveSize);
      std::fill(state.begin() + kXmmEnd, state.end(), uint8_t{0});
      return state;
    }
    case NT_X86_XSTATE:
      if (!IsExtended(tracee.extended())) return kEIO;
      return Canonical(tracee.extended());
    default:
      return kEINVAL;
  }
}

Result<void> SetRegisterSet(const StoppedTracee& tracee, uint64_t type, std::span<const uint8_t> bytes) {
  switch (type) {
    case NT_PRSTATUS:
      for (uint64_t offset = 0; offset + 8 <= std::min(bytes.size(), sizeof(abi::UserRegs)); offset += 8) {
        uint64_t value;
        memcpy(&value, &bytes[offset], sizeof value);
        TRY(SetGeneral(tracee, offset, value));
      }
      return {};
    case NT_PRFPREG:
      return SetFxsave(tracee, bytes);
    case NT_X86_XSTATE:
      return SetXstate(tracee, bytes);
    default:
      return kEINVAL;
  }
}

}  // namespace moat
