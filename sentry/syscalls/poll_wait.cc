#include "sentry/syscalls/poll_wait.h"

#include <sys/epoll.h>
#include <sys/personality.h>

#include <memory>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/timekeeping.h"

namespace moat {
namespace {

int64_t Scan(std::vector<PollEntry>& entries) {
  int64_t count = 0;
  for (PollEntry& e : entries) {
    if (e.file) {
      EventMask mask = e.interest | EPOLLERR | EPOLLHUP;
      e.ready = e.file->Poll(mask) & mask;
    }
    if (e.ready != 0) ++count;
  }
  return count;
}

// Waiters on the queues of all entries, for the scope of one wait.
class Registration {
 public:
  Registration(Task& t, std::vector<PollEntry>& entries) {
    waiters_.reserve(entries.size());
    for (PollEntry& e : entries) {
      if (!e.file) continue;
      WaitQueue& queue = e.file->wait_queue();
      waiters_.push_back({&queue, std::make_unique<ParkerWaiter>(e.interest | EPOLLERR | EPOLLHUP, t.parker())});
      queue.Add(*waiters_.back().waiter);
    }
  }
  ~Registration() {
    for (auto& w : waiters_) w.queue->Remove(*w.waiter);
  }
  Registration(const Registration&) = delete;

 private:
  struct Entry {
    WaitQueue* queue;
    std::unique_ptr<ParkerWaiter> waiter;
  };
  std::vector<Entry> waiters_;
};

}  // namespace

Result<int64_t> PollWait(Task& t, std::vector<PollEntry>& entries, Deadline deadline) {
  int64_t count = Scan(entries);
  if (count > 0 || deadline <= MonotonicNow()) return count;
  Registration registration(t, entries);
  for (;;) {
    count = Scan(entries);
    if (count > 0) return count;
    Result<void> parked = ParkInterruptible(t, deadline);
    if (parked.ok()) continue;
    if (parked.error() != kETIMEDOUT) return parked.error();
    return Scan(entries);
  }
}

Result<Deadline> ReadTimeout(Task& t, UserIn<abi::Timespec> timeout) {
  if (!timeout) return kNoDeadline;
  return DeadlineAfter(TRY(ToNanos(TRY(timeout.Read(t.memory())))));
}

void WriteTimeLeft(Task& t, GuestAddr timeout, Deadline deadline) {
  if (timeout == 0 || deadline == kNoDeadline || (t.personality & STICKY_TIMEOUTS) != 0) return;
  abi::Timespec left = ToTimespec(std::max<Nanos>(deadline - MonotonicNow(), 0));
  (void)UserOut<abi::Timespec>(timeout).Write(t.memory(), left);
}

Result<void> ApplyTemporaryMask(Task& t, UserIn<uint64_t> mask, size_t size) {
  if (!mask) return {};
  if (size != abi::kSigSetSize) return kEINVAL;
  t.SetTemporaryMask(SignalSet{TRY(mask.Read(t.memory()))});
  return {};
}

}  // namespace moat
