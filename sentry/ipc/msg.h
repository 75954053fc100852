// System V message queues. Source: msgget(2), msgop(2), msgctl(2).
#ifndef MOAT_SENTRY_IPC_MSG_H_
#define MOAT_SENTRY_IPC_MSG_H_

#include <sys/msg.h>

#include <deque>
#include <string>

#include "platform/fiber/wait_queue.h"
#include "sentry/ipc/ipc_table.h"

namespace moat {

class IpcNamespace;
class Task;

struct MsgQueue final : RefCounted {
  struct Message {
    int64_t type;
    std::string text;
  };
  IpcPerm perm;
  int id = 0;
  bool removed = false;
  std::deque<Message> messages;
  uint64_t bytes = 0;
  uint64_t max_bytes = 16384;  // MSGMNB
  int64_t stime = 0, rtime = 0, ctime = 0;
  int32_t last_sender = 0, last_receiver = 0;
  WaitQueue queue;  // EPOLLIN: a message came; EPOLLOUT: there is room
};

class MsgTable final : public RefCounted {
 public:
  static constexpr int kMaxQueues = 32000;  // MSGMNI
  explicit MsgTable(const UserNamespace& owner) : table_(owner, kMaxQueues) {}
  static RefPtr<MsgTable> Of(IpcNamespace& ns);
  static constexpr uint64_t kMaxMessage = 8192, kMaxQueue = 16384;

  Result<int> Get(Task& t, int32_t key, int flags);
  Result<RefPtr<MsgQueue>> Find(int id);
  // kEAGAIN: full; kEIDRM: removed.
  Result<void> Send(Task& t, MsgQueue& q, MsgQueue::Message& message);
  // `flags`: MSG_NOERROR, MSG_EXCEPT, MSG_COPY. kEAGAIN: nothing of that type (yet); kE2BIG.
  Result<MsgQueue::Message> Receive(Task& t, MsgQueue& q, size_t max, int64_t type, int flags);
  Result<msqid_ds> Stat(Task& t, int id, bool by_index, bool check, int* id_out);
  Result<void> Set(Task& t, int id, const msqid_ds& ds);
  Result<void> Remove(Task& t, int id);
  struct Totals {
    int queues, highest_index;
    uint64_t messages, bytes;
  };
  Totals GetTotals();

 private:
  IpcTable<MsgQueue> table_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_MSG_H_
