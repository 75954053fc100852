// The platform interface: run guest code until it needs the kernel. Implementations (ptrace, systrap) are
// mutually ignorant; registry.h names them. See ARCHITECTURE.md for stubs, zygote and their fds.
#ifndef MOAT_PLATFORM_PLATFORM_H_
#define MOAT_PLATFORM_PLATFORM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "platform/base/cpu_set.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/code_patch.h"
#include "platform/registers.h"
#include "platform/usermem/guest_memory.h"

struct sock_fprog;  // <linux/filter.h>

namespace moat {

// Why a Switch came back.
struct SyscallEvent {  // registers: orig_rax is the number, rax is -ENOSYS; others see Registers::complete
  // The same `syscall` instruction, behind which rip is, keeps calling: AddressSpace::PlanPatch may make it faster.
  bool hot = false;
  // A patched site could have answered the call by itself if it knew how: Context::Publish.
  bool wants_identity = false;
};
struct FaultEvent {  // a synchronous exception of the guest instruction at rip
  int signo;         // SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP
  int si_code;
  GuestAddr address;                    // si_addr
  uint32_t trapno = 0, error_code = 0;  // x86 trap number and page-fault error code, when known
};
struct InterruptEvent {};  // Interrupt() was called, or a time slice ended
struct ExitEvent {
  int wait_status;
};  // the stub died: the host killed it, or a bug of ours
using Event = std::variant<SyscallEvent, FaultEvent, InterruptEvent, ExitEvent>;

// A thread's registration for restartable sequences.
struct RseqArea {
  GuestAddr address = 0;  // aligned to 32; 0: none
  uint32_t signature = 0;
  bool operator==(const RseqArea&) const = default;
};

class Context;

// What calls that only concern the caller answer, as the caller's namespaces see it.
struct CallerIdentity {
  int32_t tgid = 0, tid = 0, ppid = 0;
  uint32_t uid = 0, euid = 0, gid = 0, egid = 0;
};

// A guest address space's host side: what is really mapped in its stub process. Operations are queued
// in order and take effect at the latest when Flush returns; a context never enters guest code with
// operations of its own address space outstanding, but for those of MapLater. Thread-safe. Lock: kAddressSpace.
// The caller (sentry/mm) keeps addresses within [Platform::min_address, max_address) and page aligned.
class AddressSpace : public RefCounted {
 public:
  // MAP_FIXED mapping of host fd bytes. `prot` is PROT_*; `shared` MAP_SHARED, else MAP_PRIVATE (then
  // never with PROT_WRITE: private writes are the sentry's COW). The fd must stay open until flushed.
  virtual void Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) = 0;
  // The same where the host has nothing mapped, or only what was ordered so: until the next Flush a guest that touches
  // it may meet a fault. MayWait says whether anything is left undone for that reason.
  virtual void MapLater(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) {
    Map(addr, length, prot, shared, fd, offset);
  }
  virtual bool MayWait() const { return false; }
  virtual void Unmap(GuestAddr addr, uint64_t length) = 0;
  virtual void Protect(GuestAddr addr, uint64_t length, int prot) = 0;
  // Applies the queue. `caller` is the calling task's context if it is one of this address space, else
  // null: then every context now in guest code is interrupted and the call waits for it. The first host
  // error (kENOMEM past vm.max_map_count) is returned; later operations are still applied.
  virtual Result<void> Flush(Context* caller) = 0;
  // How to rewrite the code around a hot call site; `behind` is the address behind its `syscall`, `number` the call
  // that it made. nullopt: not at all. The caller (sentry/mm) writes the pieces into private copies of the pages, and
  // takes the code back before anyone may write to it, move it, or unmap the tables.
  virtual std::optional<CodePatch> PlanPatch(const CodeWindow& code, GuestAddr behind, uint32_t number) {
    return std::nullopt;
  }
  // Patched sites that begin in [start, end) have the guest's own bytes again, or are unmapped.
  virtual void ForgetPatches(GuestAddr start, GuestAddr end) {}
  // Code that Platform::code_patcher() has planned is at [start, end): a file's, whose offset 0 would be at `bias`. Its
  // return slots are the caller's to fill, before guest code runs there.
  virtual void PlacePatches(const RefPtr<const PatchSet>& patches, uint64_t bias, GuestAddr start, GuestAddr end) {}
  // fork: the child's memory has the patches of `parent`.
  virtual void InheritPatches(const AddressSpace& parent) {}
  // Unmaps everything of the guest (execve keeps nothing; process exit).
  virtual void Clear() = 0;
};

// One guest thread's execution vehicle. All calls but Interrupt and SetAffinity come from the task's own carrier
// thread.
class Context {
 public:
  virtual ~Context() = default;
  // Loads `regs`, runs guest code in `as` until an event, stores the registers back. Binds to a stub
  // thread of `as` on first use and whenever `as` differs from the last call (execve).
  virtual Event Switch(AddressSpace& as, Registers& regs) = 0;
  // After a SyscallEvent, makes `regs` complete; the result that was set stays. Calls that need or change more than
  // arguments and result (clone, execve, rt_sigreturn, arch_prctl, sigaltstack, ...) arrive complete. kESRCH: the guest
  // thread is gone, the next Switch says so.
  virtual Result<void> Complete(Registers& regs) = 0;
  // What patched call sites may answer until Withdraw, which whoever changes any of it calls after the change; any
  // thread. Own carrier: reads the generation first, then the identity; after a Withdraw in between nothing is
  // published.
  virtual uint64_t identity_generation() { return 0; }
  virtual void Publish(const CallerIdentity& identity, uint64_t generation) {}
  virtual void Withdraw() {}
  // A hint: the next fault of a store will most likely be answered by AddressSpace::Map of its page, shared, readable
  // and writable, with `offset` of `fd`.
  virtual void ExpectCopy(int fd, uint64_t offset) {}
  // The `syscall` instructions that have called since the last time, as far as they are counted: the address behind
  // each, the number of its last call, and how many there were. For CodePatcher.
  virtual void TakeCalls(absl::FunctionRef<void(GuestAddr behind, uint32_t number, uint32_t calls)> visit) {}
  // Makes the current or next Switch return InterruptEvent soon. Any thread; async-signal-safe.
  virtual void Interrupt() = 0;
  // Where the guest thread may run, from a set that is never empty and within the sandbox's own; before the first call:
  // anywhere. Any thread.
  virtual void SetAffinity(const CpuSet& cpus) = 0;
  // rseq(2), carried out by the host kernel: from the next Switch on it keeps the 32 bytes at `area` up to date and
  // aborts critical sections that it preempts. The bytes must stay writable in `as` (MemoryManager::KeepWritable), or
  // the guest dies of it. No area: the registration ends; so it does with a Switch to another space. A critical section
  // that was left for any event is not protected any more when that Switch returns: the caller aborts it.
  // Without a call of the thread's own that says the same, its registers are lost when a registration ends.
  // kENOSYS: the host or the platform cannot.
  virtual Result<void> SetRseq(const RseqArea& area) { return area.address == 0 ? Result<void>() : kENOSYS; }
  // The extended (FPU, SSE, AVX) state of the guest thread. Setting rejects (kEINVAL) blobs that the CPU
  // would not accept (reserved bits), as sigreturn must.
  virtual Result<ExtendedState> GetExtendedState() = 0;
  virtual Result<void> SetExtendedState(const ExtendedState& state) = 0;
  // Back to the state that execve leaves.
  virtual void ResetExtendedState() = 0;
  // Makes a context for a new task. With `same_space` it shares this context's address space: the
  // stub thread is made now, by this context's carrier. Extended state starts as a copy of this one's.
  virtual Result<std::unique_ptr<Context>> Clone(bool same_space) = 0;
  // Leaves the stub thread for good; called by the task's carrier at exit.
  virtual void Release() = 0;
};

class Platform {
 public:
  virtual ~Platform() = default;
  virtual std::string_view name() const = 0;
  // Waits for what the platform still prepares beside the caller who made it; an error if it does not work on this
  // host.
  virtual Result<void> AwaitReady() { return {}; }
  // From the stub pool: a ready, empty address space.
  virtual Result<RefPtr<AddressSpace>> NewAddressSpace() = 0;
  // For the first task of a container; others come from Context::Clone.
  virtual Result<std::unique_ptr<Context>> NewContext() = 0;
  // Guest mappings lie in [min_address, max_address); the rest is the stub's own.
  virtual GuestAddr min_address() const = 0;
  virtual GuestAddr max_address() const = 0;
  // Where tables of patched call sites belong in guest memory, readable; length 0: none. The first `shared` bytes may
  // be the same memory in all processes.
  struct CallTables {
    GuestAddr start = 0;
    uint64_t length = 0;
    uint64_t shared = 0;
  };
  virtual CallTables call_tables() const { return {}; }
  // For code that processes share; null: none. Lives as long as the platform.
  virtual CodePatcher* code_patcher() { return nullptr; }
  // True when a task must always be resumed by the same host thread (ptrace: only the tracer may).
  virtual bool pins_carrier() const = 0;
  // Host pid of the zygote, for the supervisor to watch.
  virtual int zygote_pid() const = 0;
};

// How to make a platform. Made before the sentry gives up its privileges; see platform/registry.h.
struct PlatformOptions {
  int memory_fd = -1;  // the MemoryFile's memfd, in the fd table that sentry and stubs share
  int cpus = 1;        // host CPUs that the sandbox may use
  // The seccomp filter that zygote and stubs load, compiled at build time from the platform's stub_rules.inc;
  // null in unit tests: none is loaded. Must outlive the platform.
  const sock_fprog* stub_filter = nullptr;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_PLATFORM_H_
