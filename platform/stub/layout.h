// Where a stub's own pages lie in its address space: above everything that a guest can map. The guest can read them and
// run their code, but not change them: every memory operation of the sentry keeps below kStubBase.
#ifndef MOAT_PLATFORM_STUB_LAYOUT_H_
#define MOAT_PLATFORM_STUB_LAYOUT_H_

#include <cstdint>

namespace moat::stub {

inline constexpr uint64_t kStubBase = 0x7ffffffe0000;
inline constexpr uint64_t kText = kStubBase;               // the trampoline, read and execute
inline constexpr uint64_t kCommands = kStubBase + 0x1000;  // one page of Command, read only here, written by the sentry
inline constexpr uint64_t kUserEnd = 0x7ffffffff000;       // TASK_SIZE_MAX of Linux on x86-64
inline constexpr uint64_t kMinAddress = 0x10000;           // vm.mmap_min_addr

// One host call of a batch, as trampoline.S reads it.
struct Command {
  uint64_t number;
  uint64_t args[6];
};
static_assert(sizeof(Command) == 56);
inline constexpr int kMaxCommands = 4096 / sizeof(Command);

// Addresses of the trampoline's entries in a stub.
struct Entries {
  uint64_t syscall;        // one host call with the registers as they are, then a breakpoint
  uint64_t batch;          // rbx: commands, r12: count; r13: the first error or 0; then a breakpoint
  uint64_t clone_thread;   // a clone call; the new thread idles, the caller comes to a breakpoint
  uint64_t clone_process;  // the same for a new stub: it maps its command page (r13: fd, r12: offset;
                           // r14: the zygote's pid), then idles
  uint64_t idle, idle_end;
  uint64_t exit;    // ends the calling thread
  uint64_t zygote;  // unmaps everything but the trampoline, then idles
};
const Entries& TrampolineEntries();

// The trampoline's bytes, to be copied to kText. At most one page.
struct TrampolineImage {
  const void* bytes;
  uint64_t size;
};
TrampolineImage Trampoline();

}  // namespace moat::stub

#endif  // MOAT_PLATFORM_STUB_LAYOUT_H_
