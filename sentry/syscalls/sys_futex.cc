// futex(2), futex_waitv(2), the futex2 calls and robust lists: arguments only; sentry/kernel/futex.h does the work.
#include <linux/futex.h>

#include "platform/abi/futex.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

namespace moat {
namespace {

constexpr uint64_t kRobustHeadSize = 24;  // sizeof(struct robust_list_head)

// The deadline of a call whose timeout is absolute on the clock that `op` selects; relative for FUTEX_WAIT.
Result<Deadline> FutexDeadline(Task& t, GuestAddr timeout, int command, bool realtime) {
  if (timeout == 0) return kNoDeadline;
  abi::Timespec ts = TRY(UserIn<abi::Timespec>(timeout).Read(t.memory()));
  Nanos when = TRY(ToNanos(ts));
  if (command == FUTEX_WAIT) return DeadlineAfter(when);
  if (command == FUTEX_LOCK_PI) realtime = true;
  return ToDeadline(realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, when);
}

Result<int64_t> FutexWaitCall(Task& t, GuestAddr addr, bool shared, uint32_t expected, uint32_t bitset,
                              Deadline deadline) {
  Result<void> r = t.kernel().futexes().Wait(t, addr, shared, expected, bitset, deadline);
  if (r.ok()) return 0;
  if (r.error() != kERESTARTSYS || deadline == kNoDeadline) return r.error();
  RestartBlock block;
  block.kind = RestartBlock::Kind::kFutexWait;
  block.deadline = deadline;
  block.arg0 = addr;
  block.arg1 = expected;
  block.arg2 = bitset;
  block.arg3 = shared;
  return t.SetRestart(block);
}

Result<bool> Futex2Shared(uint32_t flags) {
  if (flags & ~(abi::kFutex2SizeMask | abi::kFutex2Private | abi::kFutex2Numa)) return kEINVAL;
  if ((flags & abi::kFutex2SizeMask) != abi::kFutex2SizeU32) return kEINVAL;
  if (flags & abi::kFutex2Numa) return kEINVAL;
  return (flags & abi::kFutex2Private) == 0;
}

Result<FutexWaitSpec> ReadWaitv(Task& t, UserIn<abi::FutexWaitv> array, size_t i) {
  abi::FutexWaitv w = TRY(array.ReadAt(t.memory(), i));
  if (w.reserved != 0) return kEINVAL;
  bool shared = TRY(Futex2Shared(w.flags));
  if (w.val > ~0u) return kEINVAL;
  return FutexWaitSpec{w.uaddr, static_cast<uint32_t>(w.val), shared};
}

}  // namespace

Result<int64_t> SysFutex(Task& t, GuestAddr addr, int op, uint32_t val, uint64_t timeout_or_val2, GuestAddr addr2,
                         uint32_t val3) {
  FutexTable& futexes = t.kernel().futexes();
  int command = op & FUTEX_CMD_MASK;
  bool shared = (op & FUTEX_PRIVATE_FLAG) == 0;
  bool realtime = (op & FUTEX_CLOCK_REALTIME) != 0;
  if (realtime && command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET && command != FUTEX_WAIT_REQUEUE_PI &&
      command != FUTEX_LOCK_PI2) {
    return kENOSYS;
  }
  auto deadline = [&] { return FutexDeadline(t, timeout_or_val2, command, realtime); };
  auto done = [](Result<void> r) -> Result<int64_t> {
    if (!r.ok()) return r.error();
    return 0;
  };
  int count2 = static_cast<int>(timeout_or_val2);
  switch (command) {
    case FUTEX_WAIT:
      return FutexWaitCall(t, addr, shared, val, FUTEX_BITSET_MATCH_ANY, TRY(deadline()));
    case FUTEX_WAIT_BITSET:
      return FutexWaitCall(t, addr, shared, val, val3, TRY(deadline()));
    case FUTEX_WAKE:
      return futexes.Wake(t.memory(), addr, shared, static_cast<int>(val), FUTEX_BITSET_MATCH_ANY);
    case FUTEX_WAKE_BITSET:
      return futexes.Wake(t.memory(), addr, shared, static_cast<int>(val), val3);
    case FUTEX_WAKE_OP:
      return futexes.WakeOp(t.memory(), addr, addr2, shared, static_cast<int>(val), count2, val3);
    case FUTEX_REQUEUE:
      return futexes.Requeue(t.memory(), addr, shared, addr2, shared, static_cast<int>(val), count2, nullptr);
    case FUTEX_CMP_REQUEUE:
      return futexes.Requeue(t.memory(), addr, shared, addr2, shared, static_cast<int>(val), count2, &val3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      return done(futexes.LockPi(t, addr, shared, TRY(deadline()), false));
    case FUTEX_TRYLOCK_PI:
      return done(futexes.LockPi(t, addr, shared, kNoDeadline, true));
    case FUTEX_UNLOCK_PI:
      return done(futexes.UnlockPi(t, addr, shared));
    case FUTEX_WAIT_REQUEUE_PI:
      return done(futexes.WaitRequeuePi(t, addr, val, FUTEX_BITSET_MATCH_ANY, addr2, shared, TRY(deadline())));
    case FUTEX_CMP_REQUEUE_PI:
      if (val != 1) return kEINVAL;
      return futexes.CmpRequeuePi(t, addr, addr2, shared, count2, val3);
    default:
      return kENOSYS;
  }
}

// restart_syscall(2) after FUTEX_WAIT with a timeout.
Result<int64_t> RestartFutexWait(Task& t, const RestartBlock& block) {
  return FutexWaitCall(t, block.arg0, block.arg3 != 0, static_cast<uint32_t>(block.arg1),
                       static_cast<uint32_t>(block.arg2), block.deadline);
}

Result<int64_t> SysFutexWaitv(Task& t, UserIn<abi::FutexWaitv> waiters, uint32_t count, uint32_t flags,
                              UserIn<abi::Timespec> timeout, int clock) {
  if (flags != 0 || count == 0 || count > abi::kFutexWaitvMax || !waiters) return kEINVAL;
  Deadline deadline = kNoDeadline;
  if (timeout) {
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) return kEINVAL;
    deadline = TRY(ToDeadline(clock, TRY(ToNanos(TRY(timeout.Read(t.memory()))))));
  }
  std::vector<FutexWaitSpec> specs;
  specs.reserve(count);
  for (uint32_t i = 0; i < count; ++i) specs.push_back(TRY(ReadWaitv(t, waiters, i)));
  return t.kernel().futexes().WaitMultiple(t, specs, deadline);
}

Result<int64_t> SysFutexWake(Task& t, GuestAddr addr, uint64_t mask, int count, uint32_t flags) {
  bool shared = TRY(Futex2Shared(flags));
  if (mask == 0 || mask > ~0u) return kEINVAL;
  if (count == 0) return 0;  // unlike futex(2)
  return t.kernel().futexes().Wake(t.memory(), addr, shared, count, static_cast<uint32_t>(mask));
}

Result<int64_t> SysFutexWait(Task& t, GuestAddr addr, uint64_t val, uint64_t mask, uint32_t flags,
                             UserIn<abi::Timespec> timeout, int clock) {
  bool shared = TRY(Futex2Shared(flags));
  if (mask == 0 || mask > ~0u || val > ~0u) return kEINVAL;
  Deadline deadline = kNoDeadline;
  if (timeout) {
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) return kEINVAL;
    deadline = TRY(ToDeadline(clock, TRY(ToNanos(TRY(timeout.Read(t.memory()))))));
  }
  return FutexWaitCall(t, addr, shared, static_cast<uint32_t>(val), static_cast<uint32_t>(mask), deadline);
}

Result<int64_t> SysFutexRequeue(Task& t, UserIn<abi::FutexWaitv> waiters, uint32_t flags, int wake, int requeue) {
  if (flags != 0 || !waiters) return kEINVAL;
  FutexWaitSpec from = TRY(ReadWaitv(t, waiters, 0));
  FutexWaitSpec to = TRY(ReadWaitv(t, waiters, 1));
  return t.kernel().futexes().Requeue(t.memory(), from.addr, from.shared, to.addr, to.shared, wake, requeue,
                                      &from.expected);
}

Result<int64_t> SysSetRobustList(Task& t, GuestAddr head, size_t size) {
  if (size != kRobustHeadSize) return kEINVAL;
  t.robust_list = head;
  return 0;
}

Result<int64_t> SysGetRobustList(Task& t, int pid, UserOut<uint64_t> head, UserOut<uint64_t> size) {
  GuestAddr list = t.robust_list;
  if (pid != 0 && pid != t.tid()) {
    RefPtr<Task> other = t.kernel().FindTask(pid, *t.pid_ns());
    if (!other) return kESRCH;
    if (!t.MayAccess(*other, true)) return kEPERM;
    list = other->robust_list;
  }
  TRY(size.Write(t.memory(), kRobustHeadSize));
  TRY(head.Write(t.memory(), list));
  return 0;
}

}  // namespace moat
