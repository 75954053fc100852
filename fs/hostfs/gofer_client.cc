// Sending, receiving and checking. The single operations are in gofer_operations.cc.
#include "fs/hostfs/gofer_client.h"

#include <sched.h>

#include <cstring>
#include <optional>

#include "platform/base/log.h"
#include "platform/fiber/fiber.h"

namespace moat {

using gofer::Op;

namespace {

constexpr uint32_t kForgetBatch = 256;
// So many names take the gofer a tenth of a millisecond.
constexpr uint32_t kLongLookUp = 12;

}  // namespace

Result<RefPtr<GoferClient>> GoferClient::Create(std::vector<ScopedFd> connections) {
  if (connections.empty()) return kEINVAL;
  RefPtr<GoferClient> client = AdoptRef(new GoferClient);
  for (ScopedFd& fd : connections) {
    auto c = std::make_unique<Connection>();
    c->socket = std::move(fd);
    client->connections_.push_back(std::move(c));
  }
  return client;
}

GoferClient::~GoferClient() {
  Forgotten* f = forgotten_.exchange(nullptr);
  while (f != nullptr) delete std::exchange(f, f->next);
}

Errno GoferClient::Broken(const char* what) {
  if (!dead_.exchange(true)) MOAT_LOG(kError, "gofer: {}; every file operation on host files now answers EIO", what);
  return kEIO;
}

Result<void> GoferClient::Call(Op op, Exchange& x) {
  std::optional<LongHostSleep> sleep;
  if (op == Op::kLookUp && x.request.count >= kLongLookUp) {
    sleep.emplace();
  } else {
    BeforeHostSleep();
  }
  if (forgotten_count_.load(std::memory_order_relaxed) >= kForgetBatch && op != Op::kForget) FlushForgotten();
  uint64_t length = uint64_t{sizeof(gofer::Request)} + x.name.size() + x.data.size();
  if (x.name.size() + x.data.size() > gofer::kMaxPayload) return kE2BIG;
  x.request.length = static_cast<uint32_t>(length);
  x.request.op = static_cast<uint16_t>(op);
  x.request.version = gofer::kProtocolVersion;
  x.request.name_length = static_cast<uint32_t>(x.name.size());
  x.request.data_length = static_cast<uint32_t>(x.data.size());

  int cpu = sched_getcpu();
  size_t own = (cpu < 0 ? 0 : static_cast<size_t>(cpu)) % connections_.size();
  for (size_t i = 0; i < connections_.size(); ++i) {
    Connection& c = *connections_[(own + i) % connections_.size()];
    if (!c.mu.TryLock()) continue;
    Result<void> result = CallOn(c, x);
    c.mu.Unlock();
    return result;
  }
  Connection& c = *connections_[own];
  MutexLock lock(c.mu);
  return CallOn(c, x);
}

Result<void> GoferClient::CallOn(Connection& c, Exchange& x) {
  if (dead()) return kEIO;
  round_trips_.fetch_add(1, std::memory_order_relaxed);
  x.request.sequence = ++c.sequence;
  iovec out[3] = {{&x.request, sizeof x.request},
                  {const_cast<char*>(x.name.data()), x.name.size()},
                  {const_cast<char*>(x.data.data()), x.data.size()}};
  if (!gofer::SendPacket(c.socket.get(), out, x.send_fd).ok()) return Broken("cannot send");
  iovec in[2] = {{&x.reply, sizeof x.reply}, {x.payload.data(), x.payload.size()}};
  Result<size_t> received = gofer::ReceivePacket(c.socket.get(), in, x.max_fds, x.received);
  if (!received.ok()) return Broken("cannot receive");
  if (*received == 0) return Broken("is gone");
  const gofer::Reply& r = x.reply;
  if (*received < sizeof r || r.length != *received || r.op != x.request.op || r.sequence != x.request.sequence ||
      r.error < 0 || r.error > gofer::kMaxErrno || r.fd_count > x.max_fds ||
      (!x.received.lost && r.fd_count != x.received.fds.size())) {
    return Broken("a reply breaks the protocol");
  }
  x.payload_size = *received - sizeof r;
  if (r.error != 0) {
    if (r.fd_count != 0) return Broken("an error with a descriptor");
    if (!x.partial) return static_cast<Errno>(r.error);
    return {};
  }
  if (x.fds_may_lack) return {};
  if (r.fd_count != x.max_fds) return Broken("a descriptor is missing");
  if (x.received.lost) {
    Forget(r.handle);  // of what was created
    return kENFILE;
  }
  return {};
}

void GoferClient::Forget(gofer::Handle h) {
  if (h == 0) return;
  Forgotten* f = new Forgotten{h, forgotten_.load(std::memory_order_relaxed)};
  while (!forgotten_.compare_exchange_weak(f->next, f, std::memory_order_release, std::memory_order_relaxed)) {
  }
  forgotten_count_.fetch_add(1, std::memory_order_relaxed);
}

void GoferClient::FlushForgotten() {
  Forgotten* f = forgotten_.exchange(nullptr, std::memory_order_acquire);
  while (f != nullptr) {
    gofer::Handle batch[gofer::kMaxForget];
    uint32_t n = 0;
    while (f != nullptr && n < gofer::kMaxForget) {
      batch[n++] = f->handle;
      delete std::exchange(f, f->next);
    }
    forgotten_count_.fetch_sub(n, std::memory_order_relaxed);
    Exchange x;
    x.request.count = n;
    x.name = {reinterpret_cast<const char*>(batch), n * sizeof batch[0]};
    // Nothing to do about a failure: a dead gofer has forgotten everything.
    (void)Call(Op::kForget, x);
  }
}

}  // namespace moat
