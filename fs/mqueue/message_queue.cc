#include "fs/mqueue/message_queue.h"

#include <sys/epoll.h>

namespace moat {

int64_t MessageQueue::count() const {
  MutexLock lock(mu_);
  return count_;
}

uint64_t MessageQueue::bytes() const {
  MutexLock lock(mu_);
  return bytes_;
}

Result<void> MessageQueue::Send(std::string text, uint32_t priority, int32_t sender_pid, Kuid sender_uid) {
  if (text.size() > static_cast<size_t>(limits_.message_size)) return kEMSGSIZE;
  Notifier notify;
  {
    MutexLock lock(mu_);
    if (count_ >= limits_.max_messages) return kEAGAIN;
    bytes_ += text.size();
    messages_[priority].push_back(std::move(text));
    if (++count_ == 1 && receivers_ == 0 && notify_) {
      notify = std::move(notify_);
      notify_ = nullptr;
      notify_info_ = {};
    }
  }
  queue_.Notify(EPOLLIN | EPOLLRDNORM);
  if (notify) notify(sender_pid, sender_uid);
  return {};
}

Result<MessageQueue::Message> MessageQueue::Receive(size_t room) {
  if (room < static_cast<size_t>(limits_.message_size)) return kEMSGSIZE;
  Message m;
  {
    MutexLock lock(mu_);
    if (count_ == 0) return kEAGAIN;
    auto first = messages_.begin();
    m.priority = first->first;
    m.text = std::move(first->second.front());
    first->second.pop_front();
    if (first->second.empty()) messages_.erase(first);
    --count_;
    bytes_ -= m.text.size();
  }
  queue_.Notify(EPOLLOUT | EPOLLWRNORM);
  return m;
}

EventMask MessageQueue::Poll(EventMask interest) const {
  MutexLock lock(mu_);
  EventMask ready = 0;
  if (count_ > 0) ready |= EPOLLIN | EPOLLRDNORM;
  if (count_ < limits_.max_messages) ready |= EPOLLOUT | EPOLLWRNORM;
  return ready & interest;
}

void MessageQueue::AddReceiver(int change) {
  MutexLock lock(mu_);
  receivers_ += change;
}

Result<void> MessageQueue::Register(int32_t owner_pid, int signo, Notifier notify) {
  MutexLock lock(mu_);
  if (notify_info_.owner_pid != 0) return kEBUSY;
  notify_info_ = {owner_pid, signo};
  notify_ = std::move(notify);
  return {};
}

void MessageQueue::Unregister(int32_t owner_pid) {
  Notifier dropped;
  MutexLock lock(mu_);
  if (notify_info_.owner_pid != owner_pid) return;
  notify_info_ = {};
  dropped = std::move(notify_);
  notify_ = nullptr;
}

MessageQueue::NotifyInfo MessageQueue::notify_info() const {
  MutexLock lock(mu_);
  return notify_info_;
}

}  // namespace moat
