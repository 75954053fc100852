// The contexts of Linux's asynchronous I/O: requests that are done and wait to be taken, and polls that are not.
// Reads, writes and syncs are done within io_submit, as Linux does for all that is not direct I/O on a disk.
// Thread-safe. Source: io_setup(2), io_submit(2), io_getevents(2), io_cancel(2), io_destroy(2).
#ifndef MOAT_SENTRY_KERNEL_AIO_H_
#define MOAT_SENTRY_KERNEL_AIO_H_

#include <deque>
#include <map>
#include <vector>

#include "fs/vfs/file.h"
#include "platform/abi/aio.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

class AioContext : public RefCounted {
 public:
  // `asked`: io_setup's number of requests, which fs.aio-max-nr counts.
  AioContext(uint32_t asked, uint32_t capacity);
  ~AioContext() override;

  uint32_t asked() const { return asked_; }
  uint32_t capacity() const { return capacity_; }

  // A place for one request; kEAGAIN when all are taken by requests or by events that nobody fetched.
  Result<void> Reserve();
  void Release();
  // The end of a request that has a place.
  void Complete(const abi::IoEvent& event);
  // IOCB_CMD_POLL: completes, with the events that are there, once some of `events` are. Takes over the place.
  void Poll(RefPtr<File> file, EventMask events, const abi::IoEvent& event);
  // io_cancel: ends the poll of the iocb at `obj`, with an event of no events. False when there is none.
  bool CancelPoll(uint64_t obj);

  // Takes out up to `max` events. kEAGAIN: there are none; kEINVAL: the context was destroyed.
  Result<void> Take(size_t max, std::vector<abi::IoEvent>& out);
  // Gives back events that could not be handed over, oldest first.
  void PutBack(std::span<const abi::IoEvent> events);
  WaitQueue& queue() { return queue_; }

  // io_destroy: forgets everything and wakes who waits.
  void Destroy();

 private:
  class PollRequest;
  void CompleteFired();
  void FinishPoll(PollRequest& p, EventMask ready);

  const uint32_t asked_, capacity_;
  // Notified from callbacks of other queues, hence inside of their locks.
  WaitQueue queue_{LockRank::kLog};
  std::atomic<bool> any_fired_{false};
  Mutex mu_{LockRank::kEpoll};  // held while a poll is registered
  uint32_t places_ ABSL_GUARDED_BY(mu_) = 0;
  bool destroyed_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<abi::IoEvent> events_ ABSL_GUARDED_BY(mu_);
  std::vector<RefPtr<PollRequest>> polls_ ABSL_GUARDED_BY(mu_);
};

// Those of one process, by their id: the address of the page that stands for Linux's ring.
class AioContexts {
 public:
  ~AioContexts() { Clear(); }
  // kEAGAIN over fs.aio-max-nr, which all processes share.
  static Result<RefPtr<AioContext>> Make(uint32_t asked, uint32_t capacity);
  void Add(GuestAddr id, RefPtr<AioContext> context);
  RefPtr<AioContext> Find(GuestAddr id);
  // Null when there is none.
  RefPtr<AioContext> Remove(GuestAddr id);
  void Clear();  // execve, exit
  static uint32_t total();

 private:
  Mutex mu_{LockRank::kLeaf};
  std::map<GuestAddr, RefPtr<AioContext>> contexts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_AIO_H_
