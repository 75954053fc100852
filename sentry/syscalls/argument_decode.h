// How a register becomes a handler's argument: by the argument's type, truncated as Linux's C prototypes do (an int is
// the low 32 bits). Used by dispatch.cc and trace.cc.
#ifndef MOAT_SENTRY_SYSCALLS_ARGUMENT_DECODE_H_
#define MOAT_SENTRY_SYSCALLS_ARGUMENT_DECODE_H_

#include <cstdint>
#include <type_traits>

namespace moat {

template <typename T>
T DecodeArgument(uint64_t reg) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(reg);
  } else if constexpr (std::is_enum_v<T>) {
    return static_cast<T>(static_cast<std::underlying_type_t<T>>(reg));
  } else {
    return T(reg);  // UserIn<T>, UserOut<T>, UserInOut<T>, UserString: a guest address
  }
}

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_ARGUMENT_DECODE_H_
