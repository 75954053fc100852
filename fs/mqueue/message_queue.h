// MessageQueue: one POSIX message queue. Never blocks: kEAGAIN and the wait queue. Thread-safe. Lock: kPipe.
// Source: mq_overview(7), mq_send(3), mq_receive(3), mq_notify(3).
#ifndef MOAT_FS_MQUEUE_MESSAGE_QUEUE_H_
#define MOAT_FS_MQUEUE_MESSAGE_QUEUE_H_

#include <deque>
#include <map>
#include <string>

#include "absl/functional/any_invocable.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/cred/user_namespace.h"
#include "platform/fiber/wait_queue.h"

namespace moat {

class MessageQueue final : public RefCounted {
 public:
  struct Limits {
    int64_t max_messages = 10;
    int64_t message_size = 8192;
  };
  // `charge`: whatever accounts for the queue's memory; let go of with the queue.
  MessageQueue(const Limits& limits, RefPtr<RefCounted> charge) : limits_(limits), charge_(std::move(charge)) {}

  const Limits& limits() const { return limits_; }
  int64_t count() const;
  uint64_t bytes() const;
  WaitQueue& wait_queue() { return queue_; }

  static constexpr uint32_t kMaxPriority = 32768;

  // kEMSGSIZE, kEAGAIN (full). `sender`: process id in the root namespace, and user, for the notification.
  Result<void> Send(std::string text, uint32_t priority, int32_t sender_pid, Kuid sender_uid);
  struct Message {
    std::string text;
    uint32_t priority;
  };
  // The oldest message of the highest priority. kEMSGSIZE when `room` is below the queue's message size.
  Result<Message> Receive(size_t room);
  EventMask Poll(EventMask interest) const;

  // A blocked receiver takes a message before anybody is notified of it.
  void AddReceiver(int change);

  // Called once, without locks, when a message comes into the empty queue and nobody waits for it.
  using Notifier = absl::AnyInvocable<void(int32_t sender_pid, Kuid sender_uid)>;
  // kEBUSY when some process has registered.
  Result<void> Register(int32_t owner_pid, int signo, Notifier notify);
  void Unregister(int32_t owner_pid);
  struct NotifyInfo {
    int32_t owner_pid = 0;
    int signo = 0;
  };
  NotifyInfo notify_info() const;

 private:
  const Limits limits_;
  const RefPtr<RefCounted> charge_;
  mutable Mutex mu_{LockRank::kPipe};
  std::map<uint32_t, std::deque<std::string>, std::greater<>> messages_ ABSL_GUARDED_BY(mu_);
  int64_t count_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int receivers_ ABSL_GUARDED_BY(mu_) = 0;
  NotifyInfo notify_info_ ABSL_GUARDED_BY(mu_);
  Notifier notify_ ABSL_GUARDED_BY(mu_);
  WaitQueue queue_;
};

}  // namespace moat

#endif  // MOAT_FS_MQUEUE_MESSAGE_QUEUE_H_
