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
  uint32_t magic;
  // Whether patched call sites may answer these calls themselves, and with what.
  std::atomic<uint32_t> answers;
  std::atomic<int32_t> tgid, tid, ppid, uid, euid, gid, egid;
  std::atomic<uint32_t> listening;  // 1: the carrier looks at the mailbox
  // Where in a file the next copy of a page will be, as far as the sentry foresees; negative: nowhere.
  int64_t copy_offset;
  uint32_t copy_fd;
  uint64_t fault_info, fault_frame, fault_fs, fault_gs;  // what the arguments of Enter would be
  uint64_t cpuid_site, cpuid_return;                     // of a thread in systrap_cpuid
  alignas(256) std::atomic<uint32_t> state;
  uint32_t flags;   // as `lahf; seto %al` left them in ax
  uint32_t number;  // of the call
  uint32_t site;    // times eight
  uint64_t result;
  uint64_t args[6];
};
static_assert(offsetof(Area, fs_base) == AREA_FS_BASE && offsetof(Area, gs_base) == AREA_GS_BASE);
static_assert(offsetof(Area, frame) == AREA_FRAME && offsetof(Area, listener) == AREA_LISTENER);
static_assert(offsetof(Area, agent) == AREA_AGENT && offsetof(Area, signal_stack) == AREA_STACK_T);
static_assert(offsetof(Area, rseq) == AREA_RSEQ && offsetof(Area, rseq_flags) == AREA_RSEQ_FLAGS);
static_assert(offsetof(Area, rseq_signature) == AREA_RSEQ_SIGNATURE);
static_assert(offsetof(Area, listening) == AREA_LISTENING && offsetof(Area, state) == AREA_STATE);
static_assert(offsetof(Area, flags) == AREA_FLAGS && offsetof(Area, number) == AREA_NUMBER);
static_assert(offsetof(Area, site) == AREA_SITE && offsetof(Area, result) == AREA_RESULT);
static_assert(offsetof(Area, args) == AREA_ARGS);
static_assert(offsetof(Area, copy_offset) == AREA_COPY_OFFSET && offsetof(Area, copy_fd) == AREA_COPY_FD);
static_assert(offsetof(Area, fault_info) == AREA_FAULT_INFO && offsetof(Area, fault_frame) == AREA_FAULT_FRAME);
static_assert(offsetof(Area, fault_fs) == AREA_FAULT_FS && offsetof(Area, fault_gs) == AREA_FAULT_GS);
static_assert(offsetof(Area, cpuid_site) == AREA_CPUID_SITE && offsetof(Area, cpuid_return) == AREA_CPUID_RETURN);
static_assert(offsetof(Area, magic) == AREA_MAGIC && offsetof(Area, answers) == AREA_ANSWERS);
static_assert(offsetof(Area, tgid) == AREA_TGID && offsetof(Area, ppid) == AREA_PPID);
static_assert(offsetof(Area, uid) == AREA_UID && offsetof(Area, egid) == AREA_EGID);
// The signal stack is the rest of the area.
inline constexpr uint64_t kSignalStack = 4096;

// What `cpuid` answers, for leaves that are the same on all CPUs: in guest memory that only the sentry writes.
struct CpuidTable {
  uint32_t end;  // the address behind the last entry
  uint32_t reserved[7];
  struct Entry {
    uint32_t leaf, subleaf, any_subleaf;
    uint32_t eax, ebx, ecx, edx;
    uint32_t reserved;
  };
  Entry entries[127];
};
static_assert(sizeof(CpuidTable) == 4096 && offsetof(CpuidTable, entries) == CPUID_ENTRIES - SYSTRAP_CPUID);
static_assert(sizeof(CpuidTable::Entry) == CPUID_ENTRY && offsetof(CpuidTable::Entry, edx) == CPUID_EDX);

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
uint64_t CopyAddress();
uint64_t SigreturnAddress();
uint64_t WakeAddress();
// Where thunks go, and the end of that code; see trampoline.S.
uint64_t CallAddress();
uint64_t CallFlagsAddress();
uint64_t CallRestoredAddress();
uint64_t CallEndAddress();
// The part in which the registers are in the mailbox: from the store that posts the call to that which empties it.
// Behind it the answer is in r11, up to CallSlowAddress.
uint64_t MailboxPostingAddress();
uint64_t MailboxAddress();
uint64_t MailboxAnsweredAddress();
uint64_t CallSlowAddress();
uint64_t SleepAddress();
uint64_t FrameSleepAddress();
// Where thunks of `cpuid` go: up to CpuidFlagsAddress the flags are in place, from CpuidStoredAddress on the site is in
// the area, from CpuidFinalAddress up to CpuidLastAddress the results are being loaded; from CpuidRestoredAddress to
// CpuidEndAddress the thread is on its way back to its thunk's own `cpuid`.
uint64_t CpuidAddress();
uint64_t CpuidFlagsAddress();
uint64_t CpuidStoredAddress();
uint64_t CpuidFinalAddress();
uint64_t CpuidLastAddress();
uint64_t CpuidSlowAddress();
uint64_t CpuidRestoredAddress();
uint64_t CpuidEndAddress();
// The trampoline's own bytes at a stub address, for looking at the instruction there.
const uint8_t* TrampolineBytes(uint64_t address);
// The handler of every signal that the zygote installs.
uint64_t HandlerAddress();

// The bytes of trampoline and filters as they lie at SYSTRAP_TEXT; SYSTRAP_IMAGE_SIZE of them are written.
void WriteImage(std::byte* to);
// Where the zygote starts in a copy of the image: offset of its first instruction.
uint64_t ZygoteOffset();

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_LAYOUT_H_
