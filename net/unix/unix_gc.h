// Collection of sockets that only messages in flight refer to, in a cycle: a socket sent over itself and closed.
// Every socket in flight is counted here; when the last descriptor of some socket goes, or many are in flight, the
// counts are compared with the reference counts, and the queues of unreachable sockets are emptied.
// Lock: kUnixGc, taken before sockets' locks. Source: the idea of Linux's net/unix/garbage.c, unix(7) "SCM_RIGHTS".
#ifndef MOAT_NET_UNIX_UNIX_GC_H_
#define MOAT_NET_UNIX_UNIX_GC_H_

#include <unordered_map>
#include <vector>

#include "net/unix/unix_message.h"
#include "platform/base/mutex.h"

namespace moat {

class UnixGc {
 public:
  static UnixGc& Get();
  // Rights enter or leave a queue. Taken() is called with mutex() held, so that the collector never sees a socket
  // that a receiver has just got as unreachable. Callers hold it only when the rights are sockets, which the analysis
  // cannot follow.
  void Sent(const std::vector<UnixRight>& rights);
  void Taken(const std::vector<UnixRight>& rights) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Rights that were destroyed with their message.
  void Dropped(const std::vector<UnixRight>& rights);
  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }
  // Cheap when no socket is in flight. Call without locks.
  void Collect();
  bool AnyInFlight() const { return in_flight_count_.load(std::memory_order_relaxed) != 0; }

 private:
  struct Entry {
    const RefCounted* identity = nullptr;
    int64_t in_flight = 0;
    int64_t external = 0;  // scratch of Collect: references from outside of the candidates' queues
    bool candidate = false;
  };
  // The sockets whose messages `socket` holds: its own queue and those of connections not yet accepted.
  static void ForEachQueuedSocket(UnixSocket& socket, std::vector<UnixSocket*>& out);
  void MarkReachable(UnixSocket* socket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_{LockRank::kUnixGc};
  std::unordered_map<UnixSocket*, Entry> in_flight_ ABSL_GUARDED_BY(mu_);
  std::atomic<int64_t> in_flight_count_{0};
};

}  // namespace moat

#endif  // MOAT_NET_UNIX_UNIX_GC_H_
