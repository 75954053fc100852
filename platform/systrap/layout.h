// What the sentry and the code in a stub (trampoline.S) share: pages and the words in them.
//
//   Area         one per guest thread, writable by the guest: segment bases, where the registers are, and the alternate
//                signal stack on which the host kernel saves them. Forged contents harm only that guest: the sentry
//                copies what it reads once and checks it.
//   CommandPage  one per stub, read only there: memory operations for the agent, the order for one more thread.
//   Mailbox      one page that only zygote and sentry have: orders for more stubs.
#ifndef MOAT_PLATFORM_SYSTRAP_LAYOUT_H_
#define MOAT_PLATFORM_SYSTRAP_LAYOUT_H_

#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "platform/systrap/abi.h"

namespace moat::systrap_platform {

inline constexpr uint64_t kMinAddress = 0x10000;  // vm.mmap_min_addr
inline constexpr uint64_t kMaxAddress = SYSTRAP_AREAS;
inline constexpr uint64_t kAreaSize = SYSTRAP_AREA_SIZE;
inline constexpr uint32_t kMaxAreas = SYSTRAP_MAX_AREAS;
static_assert(kMaxAddress + kMaxAreas * kAreaSize <= SYSTRAP_TEXT);

struct Area {
  uint64_t fs_base, gs_base;       // loaded before the thread goes on
  uint64_t frame;                  // stub address of the ucontext to return through
  std::atomic<uint32_t> listener;  // 0: not yet; the thread's listener plus one; or -errno
  std::atomic<uint32_t> agent;     // the same for the stub's agent, in the area of the first thread only
  stack_t signal_stack;            // for sigaltstack(2)
  uint64_t rseq;                   // for SYSTRAP_RSEQ
  uint32_t rseq_flags, rseq_signature;
};
static_assert(offsetof(Area, fs_base) == AREA_FS_BASE && offsetof(Area, gs_base) == AREA_GS_BASE);
static_assert(offsetof(Area, frame) == AREA_FRAME && offsetof(Area, listener) == AREA_LISTENER);
static_assert(offsetof(Area, agent) == AREA_AGENT && offsetof(Area, signal_stack) == AREA_STACK_T);
static_assert(offsetof(Area, rseq) == AREA_RSEQ && offsetof(Area, rseq_flags) == AREA_RSEQ_FLAGS);
static_assert(offsetof(Area, rseq_signature) == AREA_RSEQ_SIGNATURE);
// The signal stack is the rest of the area.
inline constexpr uint64_t kSignalStack = 4096;

// One host call of a batch.
struct Command {
  uint64_t number;
  uint64_t args[6];
};
static_assert(sizeof(Command) == COMMAND_SIZE);

struct CommandPage {
  Command commands[COMMANDS_MAX];
  uint64_t reserved[6];
  std::atomic<uint32_t> thread_order;  // counts orders for one more thread
  uint64_t thread_area;                // its area's address in the stub
};
static_assert(offsetof(CommandPage, thread_order) == COMMANDS_THREAD_ORDER);
static_assert(offsetof(CommandPage, thread_area) == COMMANDS_THREAD_AREA && sizeof(CommandPage) == 4096);

struct Mailbox {
  std::atomic<uint32_t> order, done;  // count orders for one more stub, and those carried out
  int32_t commands_fd, areas_fd;
  uint64_t page;  // offset of the new stub's command page
  uint64_t area;  // offset of its first thread's area
  uint64_t zygote;
  int64_t result;  // pid or -errno
};
static_assert(offsetof(Mailbox, done) == MAILBOX_DONE && offsetof(Mailbox, commands_fd) == MAILBOX_COMMANDS_FD);
static_assert(offsetof(Mailbox, areas_fd) == MAILBOX_AREAS_FD && offsetof(Mailbox, page) == MAILBOX_PAGE);
static_assert(offsetof(Mailbox, area) == MAILBOX_AREA && offsetof(Mailbox, zygote) == MAILBOX_ZYGOTE);
static_assert(offsetof(Mailbox, result) == MAILBOX_RESULT);

// Stub addresses in the trampoline, each behind a `syscall` instruction: what seccomp calls the instruction pointer.
uint64_t EnterAddress();
uint64_t SigreturnAddress();
uint64_t WakeAddress();
// The handler of every signal that the zygote installs.
uint64_t HandlerAddress();

// The bytes of trampoline and filters as they lie at SYSTRAP_TEXT; SYSTRAP_IMAGE_SIZE of them are written.
void WriteImage(std::byte* to);
// Where the zygote starts in a copy of the image: offset of its first instruction.
uint64_t ZygoteOffset();

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_LAYOUT_H_
