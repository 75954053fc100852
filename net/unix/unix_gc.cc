#include "net/unix/unix_gc.h"

#include "net/unix/unix_socket.h"

namespace moat {

UnixGc& UnixGc::Get() {
  static UnixGc* const gc = new UnixGc();
  return *gc;
}

void UnixGc::Sent(const std::vector<UnixRight>& rights) {
  bool any = false;
  for (const UnixRight& r : rights) any |= r.socket != nullptr;
  if (!any) return;
  MutexLock lock(mu_);
  for (const UnixRight& r : rights) {
    if (r.socket == nullptr) continue;
    Entry& e = in_flight_[r.socket];
    e.identity = r.identity;
    ++e.in_flight;
    in_flight_count_.fetch_add(1, std::memory_order_relaxed);
  }
}

void UnixGc::Taken(const std::vector<UnixRight>& rights) {
  for (const UnixRight& r : rights) {
    if (r.socket == nullptr) continue;
    auto at = in_flight_.find(r.socket);
    if (at == in_flight_.end()) continue;
    in_flight_count_.fetch_sub(1, std::memory_order_relaxed);
    if (--at->second.in_flight == 0) in_flight_.erase(at);
  }
}

void UnixGc::Dropped(const std::vector<UnixRight>& rights) {
  bool any = false;
  for (const UnixRight& r : rights) any |= r.socket != nullptr;
  if (!any) return;
  MutexLock lock(mu_);
  Taken(rights);
}

void UnixGc::ForEachQueuedSocket(UnixSocket& socket, std::vector<UnixSocket*>& out) {
  std::vector<RefPtr<UnixSocket>> pending;
  {
    MutexLock lock(socket.mu_);
    for (auto& m : socket.queue_) {
      for (const UnixRight& r : m->rights) {
        if (r.socket != nullptr) out.push_back(r.socket);
      }
    }
    pending.assign(socket.accept_queue_.begin(), socket.accept_queue_.end());
  }
  for (auto& p : pending) ForEachQueuedSocket(*p, out);
}

void UnixGc::MarkReachable(UnixSocket* socket) {
  std::vector<UnixSocket*> work{socket};
  while (!work.empty()) {
    UnixSocket* s = work.back();
    work.pop_back();
    auto at = in_flight_.find(s);
    if (at == in_flight_.end() || !at->second.candidate) continue;
    at->second.candidate = false;
    ForEachQueuedSocket(*s, work);
  }
}

void UnixGc::Collect() {
  if (!AnyInFlight()) return;
  std::vector<RefPtr<UnixMessage>> garbage;  // destroyed after all locks are released
  {
    MutexLock lock(mu_);
    // Candidates: nobody but messages holds them.
    std::vector<UnixSocket*> candidates;
    for (auto& [socket, e] : in_flight_) {
      e.candidate = e.identity->RefCountForTesting() == e.in_flight;
      e.external = e.in_flight;
      if (e.candidate) candidates.push_back(socket);
    }
    // Which of those messages are in queues of candidates themselves?
    for (UnixSocket* s : candidates) {
      std::vector<UnixSocket*> held;
      ForEachQueuedSocket(*s, held);
      for (UnixSocket* h : held) {
        auto at = in_flight_.find(h);
        if (at != in_flight_.end()) --at->second.external;
      }
    }
    for (UnixSocket* s : candidates) {
      if (in_flight_[s].external > 0) MarkReachable(s);
    }
    for (UnixSocket* s : candidates) {
      if (!in_flight_[s].candidate) continue;
      MutexLock socket_lock(s->mu_);
      for (auto& m : s->queue_) garbage.push_back(std::move(m));
      s->queue_.clear();
      s->queued_bytes_ = 0;
    }
    for (auto& m : garbage) Taken(m->rights);
  }
  for (auto& m : garbage) {
    for (UnixRight& r : m->rights) r.socket = nullptr;  // counted already
  }
}

}  // namespace moat
