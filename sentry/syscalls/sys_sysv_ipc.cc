// System V shared memory, semaphores and message queues. Source: shmget(2), shmop(2), shmctl(2), semget(2), semop(2),
// semctl(2), msgget(2), msgop(2), msgctl(2).
#include <sys/epoll.h>

#include "platform/abi/ipc.h"
#include "sentry/ipc/msg.h"
#include "sentry/ipc/sem.h"
#include "sentry/ipc/shm.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

namespace moat {
namespace {

RefPtr<ShmTable> Shm(Task& t) { return ShmTable::Of(*t.ipc_ns()); }
RefPtr<SemTable> Sem(Task& t) { return SemTable::Of(*t.ipc_ns()); }
RefPtr<MsgTable> Msg(Task& t) { return MsgTable::Of(*t.ipc_ns()); }

// A pid as the tables keep it (root namespace) to what the caller sees.
int32_t VisiblePid(Task& t, int32_t root_pid) {
  RefPtr<Pid> pid = root_pid != 0 ? t.kernel().FindPid(root_pid, *t.kernel().root_pid_ns()) : nullptr;
  return pid ? pid->NrIn(*t.pid_ns()) : 0;
}

template <typename T>
Result<int64_t> WriteResult(Task& t, GuestAddr to, const T& value, int64_t result) {
  TRY(UserOut<T>(to).Write(t.memory(), value));
  return result;
}

}  // namespace

// --- shared memory ---

Result<int64_t> SysShmget(Task& t, int32_t key, size_t size, int flags) {
  return TRY(Shm(t)->Get(t, key, size, flags));
}

Result<int64_t> SysShmat(Task& t, int id, GuestAddr addr, int flags) {
  return static_cast<int64_t>(TRY(Shm(t)->Attach(t, id, addr, flags)));
}

Result<int64_t> SysShmdt(Task& t, GuestAddr addr) {
  TRY(Shm(t)->Detach(t, addr));
  return 0;
}

Result<int64_t> SysShmctl(Task& t, int id, int command, GuestAddr arg) {
  RefPtr<ShmTable> table = Shm(t);
  switch (command) {
    case IPC_RMID:
      TRY(table->Remove(t, id));
      return 0;
    case IPC_SET:
      TRY(table->Set(t, id, TRY(UserIn<abi::ShmidDs>(arg).Read(t.memory()))));
      return 0;
    case IPC_STAT:
    case SHM_STAT:
    case SHM_STAT_ANY: {
      int full_id = 0;
      abi::ShmidDs ds = TRY(table->Stat(t, id, command != IPC_STAT, command != SHM_STAT_ANY, &full_id));
      ds.shm_cpid = VisiblePid(t, ds.shm_cpid);
      ds.shm_lpid = VisiblePid(t, ds.shm_lpid);
      return WriteResult(t, arg, ds, command == IPC_STAT ? 0 : full_id);
    }
    case IPC_INFO: {
      shminfo info{};
      info.shmmax = info.shmall = ~0ul - (1ul << 24);
      info.shmmin = 1;
      info.shmmni = info.shmseg = ShmTable::kMaxSegments;
      return WriteResult(t, arg, info, table->GetTotals().highest_index);
    }
    case SHM_INFO: {
      ShmTable::Totals totals = table->GetTotals();
      shm_info info{};
      info.used_ids = totals.count;
      info.shm_tot = info.shm_rss = totals.pages;
      return WriteResult(t, arg, info, totals.highest_index);
    }
    case SHM_LOCK:
    case SHM_UNLOCK:
      TRY(table->Lock(t, id, command == SHM_LOCK));
      return 0;
    default:
      return kEINVAL;
  }
}

// --- semaphores ---

Result<int64_t> SysSemget(Task& t, int32_t key, int count, int flags) { return TRY(Sem(t)->Get(t, key, count, flags)); }

Result<int64_t> SysSemtimedop(Task& t, int id, UserIn<abi::Sembuf> ops_address, size_t count,
                              UserIn<abi::Timespec> timeout) {
  Deadline deadline = kNoDeadline;
  if (timeout) deadline = DeadlineAfter(TRY(ToNanos(TRY(timeout.Read(t.memory())))));
  if (count == 0 || id < 0) return kEINVAL;
  if (count > SemTable::kMaxOps) return kE2BIG;
  std::vector<abi::Sembuf> ops = TRY(ops_address.ReadArray(t.memory(), count));
  RefPtr<SemTable> table = Sem(t);
  RefPtr<SemSet> set = TRY(table->Find(id));
  size_t blocked = 0;
  Result<void> r = table->Operate(t, *set, ops, &blocked);
  if (r.ok()) return 0;
  if (r.error() != kEAGAIN || (ops[blocked].sem_flg & IPC_NOWAIT)) return r.error();
  table->NoteWaiting(*set, ops[blocked], 1);
  const size_t noted = blocked;
  bool gave_up = false;  // a later try stopped at an operation with IPC_NOWAIT
  r = BlockingOp(t, set->queue, EPOLLIN, deadline, [&]() -> Result<void> {
    Result<void> again = table->Operate(t, *set, ops, &blocked);
    if (!again.ok() && again.error() == kEAGAIN && (ops[blocked].sem_flg & IPC_NOWAIT)) {
      gave_up = true;
      return {};
    }
    return again;
  });
  table->NoteWaiting(*set, ops[noted], -1);
  if (gave_up) return kEAGAIN;
  if (r.ok()) return 0;
  if (r.error() == kETIMEDOUT) return kEAGAIN;
  return r.error() == kERESTARTSYS ? kEINTR : r.error();  // never restarted: signal(7)
}

Result<int64_t> SysSemop(Task& t, int id, UserIn<abi::Sembuf> ops, size_t count) {
  return SysSemtimedop(t, id, ops, count, UserIn<abi::Timespec>());
}

Result<int64_t> SysSemctl(Task& t, int id, int number, int command, uint64_t arg) {
  RefPtr<SemTable> table = Sem(t);
  switch (command) {
    case IPC_RMID:
      TRY(table->Remove(t, id));
      return 0;
    case IPC_SET:
      TRY(table->Set(t, id, TRY(UserIn<abi::SemidDs>(arg).Read(t.memory()))));
      return 0;
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY: {
      int full_id = 0;
      abi::SemidDs ds = TRY(table->Stat(t, id, command != IPC_STAT, command != SEM_STAT_ANY, &full_id));
      return WriteResult(t, arg, ds, command == IPC_STAT ? 0 : full_id);
    }
    case GETVAL:
    case GETPID:
    case GETNCNT:
    case GETZCNT:
      return TRY(table->GetOne(t, id, number, command));
    case SETVAL:
      TRY(table->SetValue(t, id, number, static_cast<int>(arg)));
      return 0;
    case GETALL: {
      std::vector<uint16_t> values = TRY(table->GetAll(t, id));
      TRY(UserOut<uint16_t>(arg).WriteArray(t.memory(), values));
      return 0;
    }
    case SETALL: {
      int count = TRY(table->Count(id));
      TRY(table->SetAll(t, id, TRY(UserIn<uint16_t>(arg).ReadArray(t.memory(), static_cast<size_t>(count)))));
      return 0;
    }
    case IPC_INFO:
    case SEM_INFO: {
      SemTable::Totals totals = table->GetTotals();
      seminfo info{};
      info.semmni = SemTable::kMaxSets;
      info.semmns = 1024000000;
      info.semmsl = SemTable::kMaxPerSet;
      info.semopm = SemTable::kMaxOps;
      info.semvmx = info.semaem = SemTable::kMaxValue;
      info.semmap = info.semmnu = info.semmns;
      info.semume = SemTable::kMaxOps;
      info.semusz = command == SEM_INFO ? totals.sets : 20;
      if (command == SEM_INFO) info.semaem = totals.semaphores;
      return WriteResult(t, arg, info, totals.highest_index);
    }
    default:
      return kEINVAL;
  }
}

// --- message queues ---

Result<int64_t> SysMsgget(Task& t, int32_t key, int flags) { return TRY(Msg(t)->Get(t, key, flags)); }

Result<int64_t> SysMsgsnd(Task& t, int id, GuestAddr address, size_t size, int flags) {
  if (size > MsgTable::kMaxMessage || id < 0) return kEINVAL;
  MsgQueue::Message message;
  message.type = TRY(UserIn<int64_t>(address).Read(t.memory()));
  if (message.type < 1) return kEINVAL;
  message.text.resize(size);
  if (size != 0 && t.memory().CopyIn(message.text.data(), address + sizeof(int64_t), size) != size) return kEFAULT;
  RefPtr<MsgTable> table = Msg(t);
  RefPtr<MsgQueue> q = TRY(table->Find(id));
  auto send = [&] { return table->Send(t, *q, message); };
  Result<void> r = (flags & IPC_NOWAIT) ? send() : BlockingOp(t, q->queue, EPOLLOUT, kNoDeadline, send);
  if (!r.ok()) return r.error() == kERESTARTSYS ? kERESTARTNOHAND : r.error();
  return 0;
}

Result<int64_t> SysMsgrcv(Task& t, int id, GuestAddr address, size_t size, int64_t type, int flags) {
  if (static_cast<int64_t>(size) < 0 || id < 0) return kEINVAL;
  if ((flags & MSG_COPY) && ((flags & MSG_EXCEPT) || !(flags & IPC_NOWAIT))) return kEINVAL;
  RefPtr<MsgTable> table = Msg(t);
  RefPtr<MsgQueue> q = TRY(table->Find(id));
  auto receive = [&] { return table->Receive(t, *q, size, type, flags); };
  Result<MsgQueue::Message> r =
      (flags & IPC_NOWAIT) ? receive() : BlockingOp(t, q->queue, EPOLLIN, kNoDeadline, receive);
  if (!r.ok()) {
    if (r.error() == kEAGAIN) return kENOMSG;
    return r.error() == kERESTARTSYS ? kERESTARTNOHAND : r.error();
  }
  TRY(UserOut<int64_t>(address).Write(t.memory(), r->type));
  const size_t n = r->text.size();
  if (n != 0 && t.memory().CopyOut(address + sizeof(int64_t), r->text.data(), n) != n) return kEFAULT;
  return static_cast<int64_t>(n);
}

Result<int64_t> SysMsgctl(Task& t, int id, int command, GuestAddr arg) {
  RefPtr<MsgTable> table = Msg(t);
  switch (command) {
    case IPC_RMID:
      TRY(table->Remove(t, id));
      return 0;
    case IPC_SET:
      TRY(table->Set(t, id, TRY(UserIn<abi::MsqidDs>(arg).Read(t.memory()))));
      return 0;
    case IPC_STAT:
    case MSG_STAT:
    case MSG_STAT_ANY: {
      int full_id = 0;
      abi::MsqidDs ds = TRY(table->Stat(t, id, command != IPC_STAT, command != MSG_STAT_ANY, &full_id));
      ds.msg_lspid = VisiblePid(t, ds.msg_lspid);
      ds.msg_lrpid = VisiblePid(t, ds.msg_lrpid);
      return WriteResult(t, arg, ds, command == IPC_STAT ? 0 : full_id);
    }
    case IPC_INFO:
    case MSG_INFO: {
      MsgTable::Totals totals = table->GetTotals();
      msginfo info{};
      info.msgmax = MsgTable::kMaxMessage;
      info.msgmnb = MsgTable::kMaxQueue;
      info.msgmni = MsgTable::kMaxQueues;
      info.msgssz = 16;
      info.msgseg = 0xffff;
      if (command == MSG_INFO) {
        info.msgpool = totals.queues;
        info.msgmap = static_cast<int>(totals.messages);
        info.msgtql = static_cast<int>(totals.bytes);
      }
      return WriteResult(t, arg, info, totals.highest_index);
    }
    default:
      return kEINVAL;
  }
}

}  // namespace moat
