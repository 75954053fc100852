// epoll_create1(2), epoll_ctl(2), epoll_pwait(2), epoll_pwait2(2).
#include <sys/epoll.h>

#include "fs/anon/epoll.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/poll_wait.h"

namespace moat {
namespace {

constexpr int kMaxEvents = INT32_MAX / static_cast<int>(sizeof(abi::EpollEvent));

Result<int64_t> Create(Task& t, bool cloexec) { return TRY(t.InstallFd(MakeRef<EpollFile>(), cloexec)); }

Result<int64_t> Wait(Task& t, FdNum epfd, GuestAddr events, int max_events, Deadline deadline) {
  if (max_events <= 0 || max_events > kMaxEvents) return kEINVAL;
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(epfd)));
  auto* epoll = dynamic_cast<EpollFile*>(file.get());
  if (epoll == nullptr) return kEINVAL;
  const auto max = static_cast<size_t>(max_events);
  std::vector<abi::EpollEvent> ready;  // grows with what is registered and ready, not with what is asked for
  Result<size_t> n = kEAGAIN;
  if (deadline <= MonotonicNow()) {
    n = epoll->Collect(max, ready);
  } else {
    n = BlockingOp(t, epoll->wait_queue(), EPOLLIN, deadline, [&] { return epoll->Collect(max, ready); });
  }
  if (!n.ok()) {
    if (n.error() == kEAGAIN || n.error() == kETIMEDOUT) return 0;
    return n.error() == kERESTARTSYS ? kEINTR : n.error();
  }
  TRY(UserOut<abi::EpollEvent>(events).WriteArray(t.memory(), ready));
  return static_cast<int64_t>(ready.size());
}

Deadline FromMilliseconds(int timeout) { return timeout < 0 ? kNoDeadline : DeadlineAfter(timeout * Nanos{1'000'000}); }

}  // namespace

Result<int64_t> SysEpollCreate(Task& t, int size) {
  if (size <= 0) return kEINVAL;
  return Create(t, false);
}

Result<int64_t> SysEpollCreate1(Task& t, int flags) {
  if (flags & ~EPOLL_CLOEXEC) return kEINVAL;
  return Create(t, (flags & EPOLL_CLOEXEC) != 0);
}

Result<int64_t> SysEpollCtl(Task& t, FdNum epfd, int op, FdNum fd, UserIn<abi::EpollEvent> event) {
  abi::EpollEvent e;
  if (op != EPOLL_CTL_DEL) e = TRY(event.Read(t.memory()));
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(epfd)));
  RefPtr<File> target = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!target->SupportsEpoll()) return kEPERM;
  auto* epoll = dynamic_cast<EpollFile*>(file.get());
  if (epoll == nullptr) return kEINVAL;
  TRY(epoll->Control(op, ToInt(fd), std::move(target), e, t.cred().HasCapability(CAP_BLOCK_SUSPEND)));
  return 0;
}

Result<int64_t> SysEpollWait(Task& t, FdNum epfd, UserOut<abi::EpollEvent> events, int max_events, int timeout) {
  return Wait(t, epfd, events.addr(), max_events, FromMilliseconds(timeout));
}

Result<int64_t> SysEpollPwait(Task& t, FdNum epfd, UserOut<abi::EpollEvent> events, int max_events, int timeout,
                              UserIn<uint64_t> mask, size_t mask_size) {
  Deadline deadline = FromMilliseconds(timeout);
  TRY(ApplyTemporaryMask(t, mask, mask_size));
  return Wait(t, epfd, events.addr(), max_events, deadline);
}

Result<int64_t> SysEpollPwait2(Task& t, FdNum epfd, UserOut<abi::EpollEvent> events, int max_events,
                               UserIn<abi::Timespec> timeout, UserIn<uint64_t> mask, size_t mask_size) {
  Deadline deadline = TRY(ReadTimeout(t, timeout));
  TRY(ApplyTemporaryMask(t, mask, mask_size));
  return Wait(t, epfd, events.addr(), max_events, deadline);
}

}  // namespace moat
