// Source: prctl(2), arch_prctl(2), capabilities(7).
#include <asm/prctl.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/seccomp_filter.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/seccomp_calls.h"

namespace moat {

namespace {

constexpr size_t kCommSize = 16;
constexpr size_t kVmaNameSize = 80;

Result<int64_t> SetSecurebits(Task& t, uint64_t bits) {
  const Credentials& mine = t.cred();
  const uint32_t old = mine.securebits;
  const uint32_t next = static_cast<uint32_t>(bits);
  constexpr uint32_t kLocks = SECURE_ALL_LOCKS;
  // A lock bit stays, and what it locks does not change.
  const bool changes_locked = (((old & kLocks) >> 1) & (old ^ next)) != 0;
  const bool unlocks = (old & kLocks & ~next) != 0;
  const bool unknown = (bits & ~uint64_t{SECURE_ALL_LOCKS | SECURE_ALL_BITS}) != 0;
  if (changes_locked || unlocks || unknown || !mine.HasCapability(CAP_SETPCAP)) return kEPERM;
  RefPtr<Credentials> cred = mine.Copy();
  cred->securebits = next;
  t.SetCredentials(std::move(cred));
  return 0;
}

Result<int64_t> SetKeepCaps(Task& t, uint64_t on) {
  if (on > 1) return kEINVAL;
  if ((t.cred().securebits & SECBIT_KEEP_CAPS_LOCKED) != 0) return kEPERM;
  RefPtr<Credentials> cred = t.cred().Copy();
  cred->securebits = on ? cred->securebits | SECBIT_KEEP_CAPS : cred->securebits & ~uint32_t{SECBIT_KEEP_CAPS};
  t.SetCredentials(std::move(cred));
  return 0;
}

Result<int64_t> Ambient(Task& t, uint64_t op, uint64_t cap, uint64_t arg4, uint64_t arg5) {
  if (arg4 != 0 || arg5 != 0) return kEINVAL;
  const Credentials& mine = t.cred();
  if (op == PR_CAP_AMBIENT_CLEAR_ALL) {
    if (cap != 0) return kEINVAL;
    RefPtr<Credentials> cred = mine.Copy();
    cred->ambient = CapabilitySet::None();
    t.SetCredentials(std::move(cred));
    return 0;
  }
  if (cap > CAP_LAST_CAP) return kEINVAL;
  const int c = static_cast<int>(cap);
  switch (op) {
    case PR_CAP_AMBIENT_IS_SET:
      return mine.ambient.Has(c) ? 1 : 0;
    case PR_CAP_AMBIENT_RAISE:
      if (!mine.permitted.Has(c) || !mine.inheritable.Has(c) || (mine.securebits & SECBIT_NO_CAP_AMBIENT_RAISE) != 0)
        return kEPERM;
      break;
    case PR_CAP_AMBIENT_LOWER:
      break;
    default:
      return kEINVAL;
  }
  RefPtr<Credentials> cred = mine.Copy();
  cred->ambient = op == PR_CAP_AMBIENT_RAISE ? mine.ambient.With(c) : mine.ambient.Without(c);
  t.SetCredentials(std::move(cred));
  return 0;
}

Result<int64_t> DropBounding(Task& t, uint64_t cap) {
  if (!t.cred().HasCapability(CAP_SETPCAP)) return kEPERM;
  if (cap > CAP_LAST_CAP) return kEINVAL;
  RefPtr<Credentials> cred = t.cred().Copy();
  cred->bounding = cred->bounding.Without(static_cast<int>(cap));
  t.SetCredentials(std::move(cred));
  return 0;
}

Result<int64_t> SetVmaName(Task& t, uint64_t what, GuestAddr addr, uint64_t size, GuestAddr name_at) {
  if (what != 0 /* PR_SET_VMA_ANON_NAME */) return kEINVAL;
  RefPtr<MappingSource> source;
  if (name_at != 0) {
    Result<std::string> name = UserString(name_at).Read(t.memory(), kVmaNameSize);
    if (!name.ok()) return name.error() == kENAMETOOLONG ? kEINVAL : name.error();
    for (char c : *name) {
      if (c < ' ' || c > '~' || std::string_view("\\`$[]").find(c) != std::string_view::npos) return kEINVAL;
    }
    source = MakeRef<NamedMappingSource>("[anon:" + *name + "]");
  }
  TRY(t.memory().NameAnonymous(addr, size, std::move(source)));
  return 0;
}

// PR_SET_MM: where a process's argv, envp and so on are; needs CAP_SYS_RESOURCE.
Result<int64_t> SetMm(Task& t, uint64_t what, GuestAddr addr, uint64_t arg4, uint64_t arg5) {
  if (arg5 != 0 || (arg4 != 0 && what != PR_SET_MM_AUXV && what != PR_SET_MM_MAP && what != PR_SET_MM_MAP_SIZE))
    return kEINVAL;
  if (!t.cred().HasCapability(CAP_SYS_RESOURCE)) return kEPERM;
  if (addr < t.memory().environment().min_address || addr >= t.memory().environment().max_address) return kEINVAL;
  MmImage image = t.memory().image();
  switch (what) {
    case PR_SET_MM_START_CODE:
      image.code_start = addr;
      break;
    case PR_SET_MM_END_CODE:
      image.code_end = addr;
      break;
    case PR_SET_MM_START_DATA:
      image.data_start = addr;
      break;
    case PR_SET_MM_END_DATA:
      image.data_end = addr;
      break;
    case PR_SET_MM_START_STACK:
      image.stack_start = addr;
      break;
    case PR_SET_MM_ARG_START:
      image.arg_start = addr;
      break;
    case PR_SET_MM_ARG_END:
      image.arg_end = addr;
      break;
    case PR_SET_MM_ENV_START:
      image.env_start = addr;
      break;
    case PR_SET_MM_ENV_END:
      image.env_end = addr;
      break;
    default:
      return kEINVAL;
  }
  t.memory().set_image(std::move(image));
  return 0;
}

Result<int64_t> WriteInt(Task& t, GuestAddr at, int32_t value) {
  TRY(UserOut<int32_t>(at).Write(t.memory(), value));
  return 0;
}

}  // namespace

Result<int64_t> SysPrctl(Task& t, int option, uint64_t arg2, uint64_t arg3, uint64_t arg4, uint64_t arg5) {
  ThreadGroup& group = t.thread_group();
  const bool rest_zero = arg3 == 0 && arg4 == 0 && arg5 == 0;
  switch (option) {
    case PR_SET_PDEATHSIG:
      if (arg2 > static_cast<uint64_t>(abi::kSignalCount)) return kEINVAL;
      t.set_parent_death_signal(static_cast<int>(arg2));
      return 0;
    case PR_GET_PDEATHSIG:
      return WriteInt(t, arg2, t.parent_death_signal());
    case PR_GET_DUMPABLE:
      return t.memory().dumpable();
    case PR_SET_DUMPABLE:
      if (arg2 > 1) return kEINVAL;
      t.memory().set_dumpable(static_cast<int>(arg2));
      return 0;
    case PR_SET_NAME: {
      char name[kCommSize] = {};
      Result<std::string> text = UserString(arg2).Read(t.memory(), kCommSize);
      if (text.ok()) {
        t.SetComm(*text);
        return 0;
      }
      if (text.error() != kENAMETOOLONG) return text.error();
      if (t.memory().CopyIn(name, arg2, kCommSize - 1) != kCommSize - 1) return kEFAULT;
      t.SetComm(name);
      return 0;
    }
    case PR_GET_NAME: {
      char name[kCommSize] = {};
      const std::string comm = t.comm();
      comm.copy(name, kCommSize - 1);
      if (t.memory().CopyOut(arg2, name, sizeof name) != sizeof name) return kEFAULT;
      return 0;
    }
    case PR_GET_KEEPCAPS:
      return (t.cred().securebits & SECBIT_KEEP_CAPS) != 0 ? 1 : 0;
    case PR_SET_KEEPCAPS:
      return SetKeepCaps(t, arg2);
    case PR_GET_SECUREBITS:
      return t.cred().securebits;
    case PR_SET_SECUREBITS:
      return SetSecurebits(t, arg2);
    case PR_CAPBSET_READ:
      if (arg2 > CAP_LAST_CAP) return kEINVAL;
      return t.cred().bounding.Has(static_cast<int>(arg2)) ? 1 : 0;
    case PR_CAPBSET_DROP:
      return DropBounding(t, arg2);
    case PR_CAP_AMBIENT:
      return Ambient(t, arg2, arg3, arg4, arg5);
    case PR_SET_NO_NEW_PRIVS: {
      if (arg2 != 1 || !rest_zero) return kEINVAL;
      RefPtr<Credentials> cred = t.cred().Copy();
      cred->no_new_privs = true;
      t.SetCredentials(std::move(cred));
      return 0;
    }
    case PR_GET_NO_NEW_PRIVS:
      if (arg2 != 0 || !rest_zero) return kEINVAL;
      return t.cred().no_new_privs ? 1 : 0;
    case PR_SET_CHILD_SUBREAPER:
      group.child_subreaper.store(arg2 != 0, std::memory_order_relaxed);
      return 0;
    case PR_GET_CHILD_SUBREAPER:
      return WriteInt(t, arg2, group.child_subreaper.load(std::memory_order_relaxed) ? 1 : 0);
    case PR_SET_TIMERSLACK:
      t.set_timer_slack(arg2 == 0 || arg2 > INT64_MAX ? t.default_timer_slack() : arg2);
      return 0;
    case PR_GET_TIMERSLACK:
      return static_cast<int64_t>(t.timer_slack());
    case PR_GET_TIMING:
      return PR_TIMING_STATISTICAL;
    case PR_SET_TIMING:
      return arg2 == PR_TIMING_STATISTICAL ? Result<int64_t>(0) : Result<int64_t>(kEINVAL);
    case PR_GET_TSC:
      return WriteInt(t, arg2, PR_TSC_ENABLE);
    case PR_SET_TSC:
      // The host cannot be asked to trap rdtsc for us.
      return arg2 == PR_TSC_ENABLE ? Result<int64_t>(0) : Result<int64_t>(kEINVAL);
    case PR_MCE_KILL_GET:
      if (arg2 != 0 || !rest_zero) return kEINVAL;
      return PR_MCE_KILL_DEFAULT;
    case PR_MCE_KILL:
      if (arg4 != 0 || arg5 != 0) return kEINVAL;
      return arg2 == PR_MCE_KILL_CLEAR || arg2 == PR_MCE_KILL_SET ? Result<int64_t>(0) : Result<int64_t>(kEINVAL);
    case PR_GET_THP_DISABLE:
      if (arg2 != 0 || !rest_zero) return kEINVAL;
      return 0;
    case PR_SET_THP_DISABLE:
      if (arg3 != 0 || arg4 != 0 || arg5 != 0) return kEINVAL;
      return 0;  // there are no transparent huge pages of ours to disable
    case PR_SET_PTRACER:
      return 0;  // no guest traces another: whom it would allow makes no difference
    case PR_GET_SECCOMP:
      return t.seccomp_mode();
    case PR_SET_SECCOMP:
      if (arg2 == SECCOMP_MODE_STRICT) return SetSeccompStrict(t);
      if (arg2 == SECCOMP_MODE_FILTER) return SetSeccompFilter(t, 0, arg3);
      return kEINVAL;
    case PR_SET_MM:
      return SetMm(t, arg2, arg3, arg4, arg5);
    case PR_SET_VMA:
      return SetVmaName(t, arg2, arg3, arg4, arg5);
    case PR_GET_TID_ADDRESS:
      TRY(UserOut<uint64_t>(arg2).Write(t.memory(), t.clear_child_tid));
      return 0;
    case PR_GET_SPECULATION_CTRL:
      if (!rest_zero) return kEINVAL;
      return arg2 <= PR_SPEC_L1D_FLUSH ? Result<int64_t>(PR_SPEC_NOT_AFFECTED) : Result<int64_t>(kENODEV);
    default:
      return kEINVAL;
  }
}

Result<int64_t> SysArchPrctl(Task& t, int option, GuestAddr addr) {
  user_regs_struct& regs = t.regs().gp;
  const GuestAddr max = t.kernel().platform().max_address();
  switch (option) {
    case ARCH_SET_FS:
      if (addr >= max) return kEPERM;
      regs.fs_base = addr;
      return 0;
    case ARCH_SET_GS:
      if (addr >= max) return kEPERM;
      regs.gs_base = addr;
      return 0;
    case ARCH_GET_FS:
      TRY(UserOut<uint64_t>(addr).Write(t.memory(), regs.fs_base));
      return 0;
    case ARCH_GET_GS:
      TRY(UserOut<uint64_t>(addr).Write(t.memory(), regs.gs_base));
      return 0;
    case ARCH_GET_CPUID:
      return 1;
    case ARCH_SET_CPUID:
      return kENODEV;  // CPUID faulting is not available
    default:
      return kEINVAL;
  }
}

}  // namespace moat
