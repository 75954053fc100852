// Source: ptrace(2). Stops are in sentry/kernel/trace_stop.cc, registers in ptrace_registers.cc.
#include <asm/prctl.h>
#include <elf.h>
#include <linux/audit.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "platform/abi/ptrace.h"
#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/trace_link.h"
#include "sentry/kernel/trace_request.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/ptrace_registers.h"

namespace moat {
namespace {

constexpr int64_t kMaxErrno = 4095;

// Suspending seccomp is part of checkpointing, which Linux can be built without.
constexpr uint64_t kOptions = PTRACE_O_MASK & ~uint64_t{PTRACE_O_SUSPEND_SECCOMP};

// The register sets' own requests: PTRACE_GETREGS and the like.
Result<int64_t> GetSet(Task& t, const StoppedTracee& tracee, uint64_t type, GuestAddr to) {
  const std::vector<uint8_t> bytes = TRY(GetRegisterSet(tracee, type));
  TRY(UserOut<uint8_t>(to).WriteArray(t.memory(), bytes));
  return 0;
}

Result<int64_t> SetSet(Task& t, const StoppedTracee& tracee, uint64_t type, size_t size, GuestAddr from) {
  const std::vector<uint8_t> bytes = TRY(UserIn<uint8_t>(from).ReadArray(t.memory(), size));
  TRY(SetRegisterSet(tracee, type, bytes));
  return 0;
}

Result<int64_t> RegisterSet(Task& t, const StoppedTracee& tracee, uint64_t type, GuestAddr iovec_at, bool set) {
  iovec io = TRY(UserIn<iovec>(iovec_at).Read(t.memory()));
  const size_t size = TRY(GetRegisterSet(tracee, type)).size();
  if (io.iov_len % sizeof(uint64_t) != 0) return kEINVAL;
  io.iov_len = std::min(io.iov_len, size);
  const auto base = reinterpret_cast<GuestAddr>(io.iov_base);
  if (set) {
    TRY(SetSet(t, tracee, type, io.iov_len, base));
  } else {
    std::vector<uint8_t> bytes = TRY(GetRegisterSet(tracee, type));
    bytes.resize(io.iov_len);
    TRY(UserOut<uint8_t>(base).WriteArray(t.memory(), bytes));
  }
  TRY(UserOut<uint64_t>(iovec_at + offsetof(iovec, iov_len)).Write(t.memory(), io.iov_len));
  return 0;
}

Result<int64_t> PeekWord(Task& t, const StoppedTracee& tracee, GuestAddr addr, GuestAddr to) {
  uint64_t word;
  RefPtr<MemoryManager> mm = tracee.task().mm();
  if (!mm || mm->TracerCopyIn(&word, addr, sizeof word) != sizeof word) return kEIO;
  TRY(UserOut<uint64_t>(to).Write(t.memory(), word));
  return 0;
}

Result<int64_t> PokeWord(Task& t, const StoppedTracee& tracee, GuestAddr addr, uint64_t word) {
  RefPtr<MemoryManager> mm = tracee.task().mm();
  if (!mm) return kEIO;
  const bool done = mm->TracerCopyOut(addr, &word, sizeof word) == sizeof word;
  // Its threads must not go on with what they had before.
  TRY(mm->FlushPending(mm.get() == &t.memory() ? &t.context() : nullptr));
  return done ? Result<int64_t>(0) : kEIO;
}

Result<int64_t> PeekSigInfos(Task& t, const StoppedTracee& tracee, GuestAddr args_at, GuestAddr to) {
  constexpr size_t kAtOnce = 64;
  const auto args = TRY(UserIn<abi::PeekSigInfoArgs>(args_at).Read(t.memory()));
  if ((args.flags & ~uint32_t{PTRACE_PEEKSIGINFO_SHARED}) != 0 || args.nr < 0) return kEINVAL;
  int64_t done = 0;
  while (done < args.nr) {
    const size_t want = std::min<size_t>(kAtOnce, static_cast<size_t>(args.nr - done));
    uint64_t from;
    if (__builtin_add_overflow(args.off, done, &from)) break;
    const std::vector<SigInfo> infos = tracee.Pending((args.flags & PTRACE_PEEKSIGINFO_SHARED) != 0, from, want);
    for (const SigInfo& info : infos) {
      Result<void> put = UserOut<SigInfo>(to).WriteAt(t.memory(), static_cast<size_t>(done), info);
      if (!put.ok()) return done != 0 ? Result<int64_t>(done) : put.error();
      ++done;
    }
    if (infos.size() < want) break;
  }
  return done;
}

Result<int64_t> GetSyscallInfo(Task& t, const StoppedTracee& tracee, uint64_t room, GuestAddr to) {
  abi::PtraceSyscallInfo info;
  memset(&info, 0, sizeof info);
  const user_regs_struct& regs = tracee.regs();
  info.arch = AUDIT_ARCH_X86_64;
  info.instruction_pointer = regs.rip;
  info.stack_pointer = regs.rsp;
  size_t size = offsetof(abi::PtraceSyscallInfo, entry);
  const uint64_t args[6] = {regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9};
  const Result<SigInfo> stop = tracee.Info();
  constexpr int kSyscallStop = SIGTRAP | 0x80, kSeccompStop = SIGTRAP | PTRACE_EVENT_SECCOMP << 8;
  const int code = stop.ok() ? stop->si_code : 0;
  if (code == kSyscallStop && tracee.message() == abi::kEventMessageEntry) {
    info.op = PTRACE_SYSCALL_INFO_ENTRY;
    info.entry.nr = regs.orig_rax;
    memcpy(info.entry.args, args, sizeof args);
    size += sizeof info.entry;
  } else if (code == kSyscallStop && tracee.message() == abi::kEventMessageExit) {
    info.op = PTRACE_SYSCALL_INFO_EXIT;
    info.exit.rval = static_cast<int64_t>(regs.rax);
    info.exit.is_error = info.exit.rval < 0 && info.exit.rval >= -kMaxErrno;
    size += offsetof(decltype(info.exit), is_error) + 1;
  } else if (code == kSeccompStop) {
    info.op = PTRACE_SYSCALL_INFO_SECCOMP;
    info.seccomp.nr = regs.orig_rax;
    memcpy(info.seccomp.args, args, sizeof args);
    info.seccomp.ret_data = static_cast<uint32_t>(tracee.message());
    size += offsetof(decltype(info.seccomp), ret_data) + sizeof info.seccomp.ret_data;
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(&info);
  TRY(UserOut<uint8_t>(to).WriteArray(t.memory(), {bytes, std::min<size_t>(size, room)}));
  return static_cast<int64_t>(size);
}

Result<int64_t> ArchPrctl(Task& t, const StoppedTracee& tracee, uint64_t option, uint64_t value) {
  user_regs_struct& regs = tracee.regs();
  switch (option) {
    case ARCH_SET_FS:
      TRY(PokeUser(tracee, offsetof(user_regs_struct, fs_base), value));
      return 0;
    case ARCH_SET_GS:
      TRY(PokeUser(tracee, offsetof(user_regs_struct, gs_base), value));
      return 0;
    case ARCH_GET_FS:
      TRY(UserOut<uint64_t>(value).Write(t.memory(), regs.fs_base));
      return 0;
    case ARCH_GET_GS:
      TRY(UserOut<uint64_t>(value).Write(t.memory(), regs.gs_base));
      return 0;
    default:
      return kEINVAL;
  }
}

Result<int64_t> RseqConfiguration(Task& t, const StoppedTracee& tracee, uint64_t size, GuestAddr to) {
  if (size != sizeof(abi::RseqConfiguration)) return kEINVAL;
  const RseqRegistration& rseq = tracee.task().rseq;
  const abi::RseqConfiguration out{rseq.area, rseq.length, rseq.signature, 0, 0};
  TRY(UserOut<abi::RseqConfiguration>(to).Write(t.memory(), out));
  return static_cast<int64_t>(sizeof out);
}

// The requests that let the tracee go on.
Result<int64_t> Resume(StoppedTracee& tracee, uint64_t request, uint64_t data) {
  uint32_t flags = 0;
  switch (request) {
    case PTRACE_SYSCALL:
      flags = TraceState::kSyscallStops;
      break;
    case PTRACE_SINGLESTEP:
      flags = TraceState::kStep;
      break;
    case abi::kPtraceSysemu:
      flags = TraceState::kEmulate;
      break;
    case abi::kPtraceSysemuSinglestep:
      flags = TraceState::kEmulate | TraceState::kStep;
      break;
    default:
      break;
  }
  if (data > static_cast<uint64_t>(abi::kSignalCount)) return kEIO;
  if (request == PTRACE_DETACH) {
    tracee.Detach(static_cast<int>(data));
  } else {
    tracee.Resume(flags, static_cast<int>(data));
  }
  return 0;
}

Result<int64_t> Signals(Task& t, const StoppedTracee& tracee, uint64_t request, GuestAddr addr, uint64_t data) {
  switch (request) {
    case PTRACE_GETSIGINFO:
      TRY(UserOut<SigInfo>(data).Write(t.memory(), TRY(tracee.Info())));
      return 0;
    case PTRACE_SETSIGINFO:
      TRY(tracee.SetInfo(TRY(UserIn<SigInfo>(data).Read(t.memory()))));
      return 0;
    case PTRACE_PEEKSIGINFO:
      return PeekSigInfos(t, tracee, addr, data);
    case PTRACE_GETSIGMASK:
      if (addr != abi::kSigSetSize) return kEINVAL;
      TRY(UserOut<uint64_t>(data).Write(t.memory(), tracee.Mask().bits));
      return 0;
    default:  // PTRACE_SETSIGMASK
      if (addr != abi::kSigSetSize) return kEINVAL;
      tracee.SetMask({TRY(UserIn<uint64_t>(data).Read(t.memory()))});
      return 0;
  }
}

Result<int64_t> Request(Task& t, StoppedTracee& tracee, uint64_t request, GuestAddr addr, uint64_t data) {
  switch (request) {
    case PTRACE_PEEKTEXT:
    case PTRACE_PEEKDATA:
      return PeekWord(t, tracee, addr, data);
    case PTRACE_POKETEXT:
    case PTRACE_POKEDATA:
      return PokeWord(t, tracee, addr, data);
    case PTRACE_PEEKUSER:
      TRY(UserOut<uint64_t>(data).Write(t.memory(), TRY(PeekUser(tracee, addr))));
      return 0;
    case PTRACE_POKEUSER:
      TRY(PokeUser(tracee, addr, data));
      return 0;
    case PTRACE_GETREGS:
      return GetSet(t, tracee, NT_PRSTATUS, data);
    case PTRACE_SETREGS:
      return SetSet(t, tracee, NT_PRSTATUS, sizeof(abi::UserRegs), data);
    case PTRACE_GETFPREGS:
      return GetSet(t, tracee, NT_PRFPREG, data);
    case PTRACE_SETFPREGS:
      return SetSet(t, tracee, NT_PRFPREG, abi::kFxsaveSize, data);
    case PTRACE_GETREGSET:
    case PTRACE_SETREGSET:
      return RegisterSet(t, tracee, addr, data, request == PTRACE_SETREGSET);
    case PTRACE_GETSIGINFO:
    case PTRACE_SETSIGINFO:
    case PTRACE_PEEKSIGINFO:
    case PTRACE_GETSIGMASK:
    case PTRACE_SETSIGMASK:
      return Signals(t, tracee, request, addr, data);
    case PTRACE_SETOPTIONS:
    case abi::kPtraceOldSetOptions:
      if ((data & ~kOptions) != 0) return kEINVAL;
      tracee.SetOptions(static_cast<uint32_t>(data));
      return 0;
    case PTRACE_GETEVENTMSG:
      TRY(UserOut<uint64_t>(data).Write(t.memory(), tracee.message()));
      return 0;
    case abi::kPtraceGetSyscallInfo:
      return GetSyscallInfo(t, tracee, addr, data);
    case abi::kPtraceGetRseqConfiguration:
      return RseqConfiguration(t, tracee, addr, data);
    case abi::kPtraceArchPrctl:
      return ArchPrctl(t, tracee, data, addr);
    case PTRACE_LISTEN:
      TRY(tracee.Listen());
      return 0;
    case PTRACE_CONT:
    case PTRACE_SYSCALL:
    case PTRACE_SINGLESTEP:
    case abi::kPtraceSysemu:
    case abi::kPtraceSysemuSinglestep:
    case PTRACE_DETACH:
      return Resume(tracee, request, data);
    default: {
      static std::atomic<bool> logged{false};
      if (!logged.exchange(true, std::memory_order_relaxed))
        MOAT_LOG(kWarning, "ptrace: request {:#x} is not implemented, answers EIO", request);
      return kEIO;
    }
  }
}

Result<void> Seize(Task& t, Task& target, GuestAddr addr, uint64_t options) {
  if (addr != 0 || (options & ~uint64_t{PTRACE_O_MASK}) != 0) return kEIO;
  if ((options & ~kOptions) != 0) return kEINVAL;
  return TraceLink::Attach(t, target, true, static_cast<uint32_t>(options));
}

}  // namespace

Result<int64_t> SysPtrace(Task& t, uint64_t request, int pid, GuestAddr addr, uint64_t data) {
  if (request == PTRACE_TRACEME) {
    TRY(TraceLink::TraceMe(t));
    return 0;
  }
  RefPtr<Task> target = t.kernel().FindTask(pid, *t.pid_ns());
  if (!target) return kESRCH;
  switch (request) {
    case PTRACE_ATTACH:
      TRY(TraceLink::Attach(t, *target, false, 0));
      return 0;
    case PTRACE_SEIZE:
      TRY(Seize(t, *target, addr, data));
      return 0;
    case PTRACE_INTERRUPT:
      TRY(TraceLink::Interrupt(t, *target));
      return 0;
    case PTRACE_KILL:
      if (!TraceLink::Traces(t, *target)) return kESRCH;
      // As kill(2): the init of a namespace is not killed from within.
      (void)target->SendSignal(UserSigInfo(SIGKILL, SI_USER, t.tgid(), t.user_ns().FromKuid(t.cred().uid)),
                               t.TgidIn(*target->pid_ns()) == 0);
      return 0;
    default:
      break;
  }
  StoppedTracee tracee = TRY(StoppedTracee::Hold(t, std::move(target)));
  return Request(t, tracee, request, addr, data);
}

}  // namespace moat
