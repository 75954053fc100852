// The argument types of system call handlers beyond the plain integers: strong types that decode like the C type of
// the man page and tell the trace how to print themselves. An enum decodes as its underlying type: Linux takes the
// low 32 bits of the register for a 32-bit one.
// Types that several topics need are here; structures at the guest boundary are in platform/abi/<topic>.h. This header
// is included by every handler: keep it light (add a forward declaration or one small abi header).
#ifndef MOAT_SENTRY_SYSCALLS_ARGUMENT_TYPES_H_
#define MOAT_SENTRY_SYSCALLS_ARGUMENT_TYPES_H_

#include <poll.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "platform/abi/aio.h"
#include "platform/abi/event.h"
#include "platform/abi/futex.h"
#include "platform/abi/ipc.h"
#include "platform/abi/process.h"
#include "platform/abi/signal.h"
#include "platform/abi/socket.h"
#include "platform/abi/stat.h"
#include "platform/abi/time.h"
#include "platform/base/result.h"
#include "platform/usermem/user_ptr.h"

struct epoll_event;

namespace moat {

class Task;

// A file descriptor. `DirFdNum` also takes AT_FDCWD.
enum class FdNum : int32_t {};
enum class DirFdNum : int32_t {};
inline constexpr int32_t ToInt(FdNum fd) { return static_cast<int32_t>(fd); }
inline constexpr int32_t ToInt(DirFdNum fd) { return static_cast<int32_t>(fd); }

// Flags, printed by name: open(2) O_*, AT_*, mmap's PROT_* and MAP_*, clone's CLONE_*; a file mode in octal.
enum class OpenFlagBits : int32_t {};
enum class AtFlagBits : int32_t {};
enum class ProtBits : int32_t {};
enum class MapFlagBits : int32_t {};
enum class CloneFlagBits : uint64_t {};
enum class FileMode : uint32_t {};
// A signal number, a clock.
enum class SignalNum : int32_t {};
enum class ClockNum : int32_t {};

template <typename E>
requires std::is_enum_v<E>
constexpr std::underlying_type_t<E> Raw(E e) { return static_cast<std::underlying_type_t<E>>(e); }

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_ARGUMENT_TYPES_H_
