// InitialStack: what a program finds on its stack at its first instruction: argc, argv, envp, the auxiliary vector
// and the strings they point to. Source: System V ABI x86-64, "Initial Stack and Register State"; getauxval(3).
#ifndef MOAT_SENTRY_LOADER_INITIAL_STACK_H_
#define MOAT_SENTRY_LOADER_INITIAL_STACK_H_

#include <cstdint>

#include "platform/base/result.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

struct PreparedImage;
struct ImageIdentity;

class InitialStack {
 public:
  struct Aux {
    GuestAddr vdso = 0;
    GuestAddr headers = 0;
    uint64_t header_count = 0;
    GuestAddr base = 0;
    GuestAddr entry = 0;
  };

  // Both must outlive this object.
  InitialStack(const PreparedImage& image, const ImageIdentity& identity) : image_(image), identity_(identity) {}

  // An upper bound of the bytes that Write needs.
  uint64_t MaxSize() const;
  // Writes it below `top`; returns the stack pointer, 16-byte aligned. Fills the argument, environment and auxv fields
  // of `about`. kEFAULT when the memory is not there.
  Result<GuestAddr> Write(MemoryManager& mm, GuestAddr top, const Aux& aux, MmImage* about) const;

 private:
  uint64_t StringBytes() const;

  const PreparedImage& image_;
  const ImageIdentity& identity_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_INITIAL_STACK_H_
