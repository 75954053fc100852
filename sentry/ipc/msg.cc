#include "sentry/ipc/msg.h"

#include <sys/epoll.h>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"

namespace moat {
namespace {
int64_t Now() { return RealtimeNow() / kNanosPerSec; }
}  // namespace

RefPtr<MsgTable> MsgTable::Of(IpcNamespace& ns) {
  RefPtr<RefCounted> table = ns.slot(IpcNamespace::kMsg);
  if (!table) table = ns.AttachOnce(IpcNamespace::kMsg, MakeRef<MsgTable>(ns.owner()));
  return RefPtr<MsgTable>(static_cast<MsgTable*>(table.get()));
}

Result<int> MsgTable::Get(Task& t, int32_t key, int flags) {
  MutexLock lock(table_.mutex());
  return table_.Get(
      t.cred(), key, flags,
      []() -> Result<RefPtr<MsgQueue>> {
        RefPtr<MsgQueue> q = MakeRef<MsgQueue>();
        q->ctime = Now();
        return q;
      },
      [](MsgQueue&) -> Result<void> { return {}; });
}

Result<RefPtr<MsgQueue>> MsgTable::Find(int id) {
  MutexLock lock(table_.mutex());
  return RefPtr<MsgQueue>(TRY(table_.Find(id)));
}

Result<void> MsgTable::Send(Task& t, MsgQueue& q, MsgQueue::Message& message) {
  {
    MutexLock lock(table_.mutex());
    if (q.removed) return kEIDRM;
    TRY(CheckIpc(t.cred(), q.perm, table_.owner(), 0222));
    if (message.text.size() + q.bytes > q.max_bytes || q.messages.size() + 1 > q.max_bytes) return kEAGAIN;
    q.bytes += message.text.size();
    q.messages.push_back(std::move(message));
    q.last_sender = t.RootTgid();
    q.stime = Now();
  }
  q.queue.Notify(EPOLLIN);
  return {};
}

Result<MsgQueue::Message> MsgTable::Receive(Task& t, MsgQueue& q, size_t max, int64_t type, int flags) {
  MsgQueue::Message message;
  {
    MutexLock lock(table_.mutex());
    if (q.removed) return kEIDRM;
    TRY(CheckIpc(t.cred(), q.perm, table_.owner(), 0444));
    auto found = q.messages.end();
    if (flags & MSG_COPY) {
      // By position, for a look.
      if (type < 0 || static_cast<uint64_t>(type) >= q.messages.size()) return kENOMSG;
      found = q.messages.begin() + type;
    } else {
      for (auto at = q.messages.begin(); at != q.messages.end(); ++at) {
        if (type < 0) {
          // The lowest type up to |type|, the first of it.
          if (at->type <= -type && (found == q.messages.end() || at->type < found->type)) found = at;
          continue;
        }
        if (type == 0 || ((flags & MSG_EXCEPT) ? at->type != type : at->type == type)) {
          found = at;
          break;
        }
      }
      if (found == q.messages.end()) return kEAGAIN;
    }
    if (found->text.size() > max && !(flags & MSG_NOERROR)) return kE2BIG;
    if (flags & MSG_COPY) {
      message = *found;
    } else {
      message = std::move(*found);
      q.messages.erase(found);
      q.bytes -= message.text.size();
      q.last_receiver = t.RootTgid();
      q.rtime = Now();
    }
  }
  if (!(flags & MSG_COPY)) q.queue.Notify(EPOLLOUT);
  if (message.text.size() > max) message.text.resize(max);
  return message;
}

Result<msqid_ds> MsgTable::Stat(Task& t, int id, bool by_index, bool check, int* id_out) {
  MutexLock lock(table_.mutex());
  MsgQueue* q = TRY(by_index ? table_.FindIndex(id) : table_.Find(id));
  if (check) TRY(CheckIpc(t.cred(), q->perm, table_.owner(), 0444));
  *id_out = q->id;
  msqid_ds ds{};
  ds.msg_perm = EncodePerm(t.user_ns(), q->perm, q->id);
  ds.msg_stime = q->stime;
  ds.msg_rtime = q->rtime;
  ds.msg_ctime = q->ctime;
  ds.__msg_cbytes = q->bytes;
  ds.msg_qnum = q->messages.size();
  ds.msg_qbytes = q->max_bytes;
  ds.msg_lspid = q->last_sender;
  ds.msg_lrpid = q->last_receiver;
  return ds;
}

Result<void> MsgTable::Set(Task& t, int id, const msqid_ds& ds) {
  RefPtr<MsgQueue> q;
  {
    MutexLock lock(table_.mutex());
    q = RefPtr<MsgQueue>(TRY(table_.Find(id)));
    TRY(CheckIpcOwner(t.cred(), q->perm, table_.owner()));
    if (ds.msg_qbytes > kMaxQueue && !t.cred().HasCapabilityIn(CAP_SYS_RESOURCE, table_.owner())) return kEPERM;
    TRY(ApplyPerm(t.user_ns(), ds.msg_perm, &q->perm));
    q->max_bytes = ds.msg_qbytes;
    q->ctime = Now();
  }
  q->queue.Notify(EPOLLIN | EPOLLOUT);
  return {};
}

Result<void> MsgTable::Remove(Task& t, int id) {
  RefPtr<MsgQueue> gone;
  {
    MutexLock lock(table_.mutex());
    MsgQueue* q = TRY(table_.Find(id));
    TRY(CheckIpcOwner(t.cred(), q->perm, table_.owner()));
    gone = table_.Remove(*q);
  }
  gone->queue.Notify(EPOLLIN | EPOLLOUT);
  return {};
}

MsgTable::Totals MsgTable::GetTotals() {
  MutexLock lock(table_.mutex());
  Totals totals{static_cast<int>(table_.objects().size()), table_.HighestIndex(), 0, 0};
  for (auto& [index, q] : table_.objects()) {
    totals.messages += q->messages.size();
    totals.bytes += q->bytes;
  }
  return totals;
}

}  // namespace moat
