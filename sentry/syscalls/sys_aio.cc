// Asynchronous I/O: io_setup(2), io_destroy(2), io_submit(2), io_cancel(2), io_getevents(2), io_pgetevents(2).
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>

#include "fs/anon/eventfd.h"
#include "platform/abi/aio.h"
#include "sentry/kernel/aio.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/file_io.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/io_vector.h"
#include "sentry/syscalls/poll_wait.h"

namespace moat {
namespace {

constexpr int kKnownRwf = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

// What io_getevents will say of a request that was taken on. Restart codes mean that a signal cut it short.
int64_t ResultOf(const Result<int64_t>& r) {
  if (r.ok()) return *r;
  const int64_t error = static_cast<int64_t>(r.error());
  return error >= static_cast<int64_t>(kERESTARTSYS) ? -EINTR : -error;
}

IoPosition PositionIn(Task& t, File& file, int64_t offset) {
  Task::FsCall fs(t);
  Result<int64_t> here = file.Seek(fs, 0, SEEK_CUR);
  if (!here.ok() && here.error() == kESPIPE) return {};  // a stream
  return {true, offset};
}

// One contiguous buffer, or the vector that aio_buf points to.
struct Buffers {
  IoVector vector;
  GuestRange one;
  bool is_vector = false;
  std::span<const GuestRange> ranges() const { return is_vector ? vector.ranges() : std::span(&one, 1); }
};

Result<void> FindBuffers(Task& t, const abi::Iocb& r, Buffers& out) {
  out.is_vector = r.aio_lio_opcode == IOCB_CMD_PREADV || r.aio_lio_opcode == IOCB_CMD_PWRITEV;
  if (out.is_vector) return out.vector.Read(t, r.aio_buf, r.aio_nbytes);
  const size_t count = std::min<size_t>(r.aio_nbytes, kMaxReadWrite);
  TRY(CheckUserRange(t, r.aio_buf, count));
  out.one = {r.aio_buf, count};
  return {};
}

// Errors returned are io_submit's; what the transfer itself answers goes into `result`.
Result<void> Transfer(Task& t, const abi::Iocb& r, File& file, bool write, int64_t& result) {
  if ((r.aio_rw_flags & ~kKnownRwf) != 0) return kEOPNOTSUPP;
  if (write ? !file.writable() : !file.readable()) return kEBADF;
  if (file.inode()->is_dir()) return kEINVAL;
  Buffers buffers;
  TRY(FindBuffers(t, r, buffers));
  if (r.aio_offset < 0) return kEINVAL;
  IoPosition at = PositionIn(t, file, r.aio_offset);
  const bool may_block = (r.aio_rw_flags & RWF_NOWAIT) == 0;
  if (!write) {
    GuestIoDest dst(t.memory(), buffers.ranges());
    result = ResultOf(ReadFile(t, file, dst, at, may_block));
    return {};
  }
  if ((r.aio_rw_flags & RWF_APPEND) != 0 && at.explicit_offset)
    at.offset = static_cast<int64_t>(TRY(file.GetAttr()).size);
  GuestIoSource src(t.memory(), buffers.ranges());
  Result<int64_t> written = WriteFile(t, file, src, at, may_block);
  if (written.ok() && (r.aio_rw_flags & (RWF_DSYNC | RWF_SYNC)) != 0) {
    if (Result<void> synced = file.Sync((r.aio_rw_flags & RWF_SYNC) == 0); !synced.ok()) written = synced.error();
  }
  result = ResultOf(written);
  return {};
}

Result<void> Sync(const abi::Iocb& r, File& file, int64_t& result) {
  if (r.aio_buf != 0 || r.aio_offset != 0 || r.aio_nbytes != 0 || r.aio_rw_flags != 0) return kEINVAL;
  Result<void> synced = file.Sync(r.aio_lio_opcode == IOCB_CMD_FDSYNC);
  if (!synced.ok() && synced.error() == kEINVAL) return kEINVAL;  // a file that knows no sync
  result = synced.ok() ? 0 : -static_cast<int64_t>(synced.error());
  return {};
}

Result<void> StartPoll(AioContext& context, const abi::Iocb& r, RefPtr<File> file, const abi::IoEvent& event) {
  if (r.aio_buf > UINT16_MAX || r.aio_offset != 0 || r.aio_nbytes != 0 || r.aio_rw_flags != 0) return kEINVAL;
  // Its end would have to signal the eventfd from within the file's own notification.
  if ((r.aio_flags & IOCB_FLAG_RESFD) != 0) return kEINVAL;
  context.Poll(std::move(file), static_cast<EventMask>(r.aio_buf) | EPOLLERR | EPOLLHUP, event);
  return {};
}

Result<void> SubmitReserved(Task& t, AioContext& context, GuestAddr address, const abi::Iocb& r) {
  RefPtr<File> file = TRY(t.GetFileNotPath(static_cast<int>(r.aio_fildes)));
  RefPtr<File> told;
  EventFd* eventfd = nullptr;
  if ((r.aio_flags & IOCB_FLAG_RESFD) != 0) {
    told = TRY(t.GetFileNotPath(static_cast<int>(r.aio_resfd)));
    eventfd = dynamic_cast<EventFd*>(told.get());
    if (eventfd == nullptr) return kEINVAL;
  }
  TRY(UserOut<uint32_t>(address + offsetof(abi::Iocb, aio_key)).Write(t.memory(), 0));  // Linux's KIOCB_KEY
  abi::IoEvent event{r.aio_data, address, 0, 0};
  int64_t result = 0;
  switch (r.aio_lio_opcode) {
    case IOCB_CMD_PREAD:
    case IOCB_CMD_PREADV:
      TRY(Transfer(t, r, *file, false, result));
      break;
    case IOCB_CMD_PWRITE:
    case IOCB_CMD_PWRITEV:
      TRY(Transfer(t, r, *file, true, result));
      break;
    case IOCB_CMD_FSYNC:
    case IOCB_CMD_FDSYNC:
      TRY(Sync(r, *file, result));
      break;
    case IOCB_CMD_POLL:
      return StartPoll(context, r, std::move(file), event);
    default:
      return kEINVAL;
  }
  event.res = result;
  context.Complete(event);
  if (eventfd != nullptr) eventfd->Signal();
  return {};
}

Result<void> SubmitOne(Task& t, AioContext& context, GuestAddr address) {
  const abi::Iocb r = TRY(UserIn<abi::Iocb>(address).Read(t.memory()));
  if (r.aio_reserved2 != 0 || static_cast<int64_t>(r.aio_nbytes) < 0) return kEINVAL;
  TRY(context.Reserve());
  Result<void> submitted = SubmitReserved(t, context, address, r);
  if (!submitted.ok()) context.Release();
  return submitted;
}

// io_getevents: waits for `min` events and takes up to `max`. What came before a signal or the deadline counts.
Result<int64_t> GetEvents(Task& t, GuestAddr id, int64_t min, int64_t max, UserOut<abi::IoEvent> out,
                          Deadline deadline) {
  RefPtr<AioContext> context = t.thread_group().aio().Find(id);
  if (!context || min < 0 || min > max) return kEINVAL;
  std::vector<abi::IoEvent> events;
  const auto limit = static_cast<size_t>(std::min<int64_t>(max, context->capacity()));
  auto once = [&]() -> Result<void> {
    Result<void> taken = context->Take(limit - events.size(), events);
    if (events.size() >= static_cast<size_t>(min) || events.size() == limit) return {};
    return taken.ok() ? kEAGAIN : taken;
  };
  Result<void> r = deadline <= MonotonicNow() ? once() : BlockingOp(t, context->queue(), EPOLLIN, deadline, once);
  if (events.empty()) {
    if (r.ok() || r.error() == kETIMEDOUT || r.error() == kEAGAIN) return 0;
    return r.error();
  }
  if (Result<void> told = out.WriteArray(t.memory(), events); !told.ok()) {
    context->PutBack(events);
    return told.error();
  }
  return static_cast<int64_t>(events.size());
}

// Linux takes any timespec here: what lies before now is now.
Result<Deadline> TimeoutOf(Task& t, UserIn<abi::Timespec> timeout) {
  if (!timeout) return kNoDeadline;
  Result<Nanos> delta = ToNanos(TRY(timeout.Read(t.memory())));
  return DeadlineAfter(delta.ok() ? *delta : 0);
}

}  // namespace

Result<int64_t> SysIoSetup(Task& t, uint32_t count, UserInOut<uint64_t> out) {
  if (TRY(out.Read(t.memory())) != 0 || count == 0) return kEINVAL;
  constexpr uint32_t kMost = 0x10000000 / sizeof(abi::IoEvent);
  // Twice, and at least some for each processor: so Linux makes its ring.
  const uint64_t capacity = std::max<uint64_t>(count, static_cast<uint64_t>(t.kernel().cpus()) * 4) * 2;
  if (capacity > kMost) return kEINVAL;
  RefPtr<AioContext> context = TRY(AioContexts::Make(count, static_cast<uint32_t>(capacity)));
  // Libraries look into the page for Linux's ring, do not find its magic number, and make the call.
  MmapRequest request;
  request.length = kPageSize;
  request.prot = PROT_READ;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  request.source = MakeRef<NamedMappingSource>("/[aio] (deleted)");
  Result<GuestAddr> id = t.memory().Mmap(request, t.mm_limits(), &t.context());
  if (!id.ok()) {
    context->Destroy();
    return id.error();
  }
  t.thread_group().aio().Add(*id, std::move(context));
  if (Result<void> told = out.Write(t.memory(), *id); !told.ok()) {
    (void)SysIoDestroy(t, *id);
    return told.error();
  }
  return 0;
}

Result<int64_t> SysIoDestroy(Task& t, uint64_t id) {
  RefPtr<AioContext> context = t.thread_group().aio().Remove(id);
  if (!context) return kEINVAL;
  context->Destroy();
  (void)t.memory().Munmap(id, kPageSize, &t.context());
  return 0;
}

Result<int64_t> SysIoSubmit(Task& t, uint64_t id, int64_t count, UserIn<uint64_t> requests) {
  if (count < 0) return kEINVAL;
  RefPtr<AioContext> context = t.thread_group().aio().Find(id);
  if (!context) return kEINVAL;
  count = std::min<int64_t>(count, context->capacity());
  for (int64_t i = 0; i < count; ++i) {
    Result<uint64_t> address = requests.ReadAt(t.memory(), static_cast<size_t>(i));
    Result<void> one = address.ok() ? SubmitOne(t, *context, *address) : address.error();
    if (one.ok()) continue;
    return i != 0 ? Result<int64_t>(i) : one.error();
  }
  return count;
}

Result<int64_t> SysIoCancel(Task& t, uint64_t id, GuestAddr request, GuestAddr) {
  const uint32_t key = TRY(UserIn<uint32_t>(request + offsetof(abi::Iocb, aio_key)).Read(t.memory()));
  if (key != 0) return kEINVAL;
  RefPtr<AioContext> context = t.thread_group().aio().Find(id);
  if (!context || !context->CancelPoll(request)) return kEINVAL;
  return kEINPROGRESS;  // io_getevents delivers its end
}

Result<int64_t> SysIoGetevents(Task& t, uint64_t id, int64_t min, int64_t max, UserOut<abi::IoEvent> out,
                               UserIn<abi::Timespec> timeout) {
  Result<int64_t> n = GetEvents(t, id, min, max, out, TRY(TimeoutOf(t, timeout)));
  if (!n.ok() && n.error() == kERESTARTSYS) return kEINTR;
  return n;
}

Result<int64_t> SysIoPgetevents(Task& t, uint64_t id, int64_t min, int64_t max, UserOut<abi::IoEvent> out,
                                UserIn<abi::Timespec> timeout, UserIn<abi::AioSigset> sigset) {
  const Deadline deadline = TRY(TimeoutOf(t, timeout));
  if (sigset) {
    const abi::AioSigset s = TRY(sigset.Read(t.memory()));
    TRY(ApplyTemporaryMask(t, UserIn<uint64_t>(s.mask), s.size));
  }
  Result<int64_t> n = GetEvents(t, id, min, max, out, deadline);
  if (!n.ok() && n.error() == kERESTARTSYS) return kERESTARTNOHAND;
  return n;
}

}  // namespace moat
