// poll(2), ppoll(2), select(2), pselect6(2).
#include <poll.h>
#include <sys/epoll.h>
#include <sys/personality.h>
#include <sys/select.h>

#include <algorithm>

#include "sentry/kernel/rlimits.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/poll_wait.h"

namespace moat {
namespace {

// poll and epoll share their bits on x86.
static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR && POLLHUP == EPOLLHUP &&
              POLLPRI == EPOLLPRI && POLLRDHUP == EPOLLRDHUP);

Result<int64_t> Poll(Task& t, GuestAddr address, uint32_t count, Deadline deadline) {
  if (count > t.thread_group().rlimits().Soft(RLIMIT_NOFILE)) return kEINVAL;
  std::vector<pollfd> fds = TRY(UserIn<pollfd>(address).ReadArray(t.memory(), count));
  std::vector<PollEntry> entries(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (fds[i].fd < 0) continue;
    entries[i].interest = static_cast<uint16_t>(fds[i].events);
    Result<RefPtr<File>> file = t.GetFileNotPath(fds[i].fd);
    if (file.ok()) {
      entries[i].file = std::move(*file);
    } else {
      entries[i].ready = POLLNVAL;
    }
  }
  Result<int64_t> ready = PollWait(t, entries, deadline);
  if (!ready.ok()) return ready;
  for (uint32_t i = 0; i < count; ++i) fds[i].revents = static_cast<int16_t>(entries[i].ready);
  // Only revents is the kernel's to write: another thread may have changed fd or events meanwhile.
  for (uint32_t i = 0; i < count; ++i) {
    GuestAddr at = address + i * sizeof(pollfd) + offsetof(pollfd, revents);
    TRY(UserOut<int16_t>(at).Write(t.memory(), fds[i].revents));
  }
  return ready;
}

Result<int64_t> PollOrRestart(Task& t, GuestAddr address, uint32_t count, Deadline deadline) {
  Result<int64_t> r = Poll(t, address, count, deadline);
  if (r.ok() || r.error() != kERESTARTSYS) return r;
  RestartBlock block;
  block.kind = RestartBlock::Kind::kPoll;
  block.deadline = deadline;
  block.arg0 = address;
  block.arg1 = count;
  return t.SetRestart(block);
}

// --- select ---

using FdWord = uint64_t;
constexpr int kWordBits = 64;

struct FdSets {
  std::vector<FdWord> in, out, except;
};

Result<std::vector<FdWord>> ReadSet(Task& t, GuestAddr address, size_t words) {
  if (address == 0) return std::vector<FdWord>(words);
  return UserIn<FdWord>(address).ReadArray(t.memory(), words);
}

bool Has(const std::vector<FdWord>& set, int fd) { return (set[fd / kWordBits] >> (fd % kWordBits)) & 1; }
void Add(std::vector<FdWord>& set, int fd) { set[fd / kWordBits] |= FdWord{1} << (fd % kWordBits); }

constexpr EventMask kSelectIn = EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR;
constexpr EventMask kSelectOut = EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR;
constexpr EventMask kSelectExcept = EPOLLPRI;

Result<int64_t> Select(Task& t, int n, GuestAddr in_address, GuestAddr out_address, GuestAddr except_address,
                       Deadline deadline) {
  if (n < 0) return kEINVAL;
  n = std::min(n, t.fds().Capacity());
  const size_t words = (static_cast<size_t>(n) + kWordBits - 1) / kWordBits;
  FdSets wanted{TRY(ReadSet(t, in_address, words)), TRY(ReadSet(t, out_address, words)),
                TRY(ReadSet(t, except_address, words))};
  std::vector<PollEntry> entries;
  std::vector<int> fds;
  for (int fd = 0; fd < n; ++fd) {
    EventMask interest = 0;
    if (Has(wanted.in, fd)) interest |= kSelectIn;
    if (Has(wanted.out, fd)) interest |= kSelectOut;
    if (Has(wanted.except, fd)) interest |= kSelectExcept;
    if (interest == 0) continue;
    entries.push_back({TRY(t.GetFileNotPath(fd)), interest, 0});
    fds.push_back(fd);
  }
  TRY(PollWait(t, entries, deadline));
  FdSets ready{std::vector<FdWord>(words), std::vector<FdWord>(words), std::vector<FdWord>(words)};
  int64_t count = 0;
  for (size_t i = 0; i < fds.size(); ++i) {
    auto note = [&](const std::vector<FdWord>& asked, EventMask bits, std::vector<FdWord>& set) {
      if (!Has(asked, fds[i]) || (entries[i].ready & bits) == 0) return;
      Add(set, fds[i]);
      ++count;
    };
    note(wanted.in, kSelectIn, ready.in);
    note(wanted.out, kSelectOut, ready.out);
    note(wanted.except, kSelectExcept, ready.except);
  }
  auto write = [&](GuestAddr address, const std::vector<FdWord>& set) -> Result<void> {
    if (address == 0) return {};
    return UserOut<FdWord>(address).WriteArray(t.memory(), set);
  };
  TRY(write(in_address, ready.in));
  TRY(write(out_address, ready.out));
  TRY(write(except_address, ready.except));
  return count;
}

Result<int64_t> NoHandlerRestart(Result<int64_t> r) {
  if (!r.ok() && r.error() == kERESTARTSYS) return kERESTARTNOHAND;
  return r;
}

}  // namespace

Result<int64_t> SysPoll(Task& t, UserInOut<pollfd> fds, uint32_t count, int timeout_ms) {
  Deadline deadline = timeout_ms < 0 ? kNoDeadline : DeadlineAfter(timeout_ms * Nanos{1'000'000});
  return PollOrRestart(t, fds.addr(), count, deadline);
}

Result<int64_t> RestartPoll(Task& t, const RestartBlock& block) {
  return PollOrRestart(t, block.arg0, static_cast<uint32_t>(block.arg1), block.deadline);
}

Result<int64_t> SysPpoll(Task& t, UserInOut<pollfd> fds, uint32_t count, UserInOut<abi::Timespec> timeout,
                         UserIn<uint64_t> mask, size_t mask_size) {
  Deadline deadline = TRY(ReadTimeout(t, UserIn<abi::Timespec>(timeout.addr())));
  TRY(ApplyTemporaryMask(t, mask, mask_size));
  Result<int64_t> r = NoHandlerRestart(Poll(t, fds.addr(), count, deadline));
  WriteTimeLeft(t, timeout.addr(), deadline);
  return r;
}

Result<int64_t> SysSelect(Task& t, int n, GuestAddr in, GuestAddr out, GuestAddr except,
                          UserInOut<abi::Timeval> timeout) {
  Deadline deadline = kNoDeadline;
  if (timeout) {
    // Microseconds past a second are accepted, as Linux does for select only.
    abi::Timeval tv = TRY(timeout.Read(t.memory()));
    if (tv.tv_sec < 0 || tv.tv_usec < 0) return kEINVAL;
    Nanos delta;
    if (__builtin_mul_overflow(tv.tv_sec, kNanosPerSec, &delta) ||
        __builtin_add_overflow(delta, tv.tv_usec > kNoDeadline / 1000 ? kNoDeadline : tv.tv_usec * 1000, &delta)) {
      delta = kNoDeadline;
    }
    deadline = DeadlineAfter(delta);
  }
  Result<int64_t> r = NoHandlerRestart(Select(t, n, in, out, except, deadline));
  if (timeout && deadline != kNoDeadline && (t.personality & STICKY_TIMEOUTS) == 0) {
    abi::Timeval left = ToTimeval(std::max<Nanos>(deadline - MonotonicNow(), 0));
    (void)timeout.Write(t.memory(), left);
  }
  return r;
}

Result<int64_t> SysPselect6(Task& t, int n, GuestAddr in, GuestAddr out, GuestAddr except,
                            UserInOut<abi::Timespec> timeout, GuestAddr mask_argument) {
  Deadline deadline = TRY(ReadTimeout(t, UserIn<abi::Timespec>(timeout.addr())));
  if (mask_argument != 0) {
    struct MaskArgument {
      uint64_t mask, size;
    };
    auto m = TRY(UserIn<MaskArgument>(mask_argument).Read(t.memory()));
    TRY(ApplyTemporaryMask(t, UserIn<uint64_t>(m.mask), m.size));
  }
  Result<int64_t> r = NoHandlerRestart(Select(t, n, in, out, except, deadline));
  WriteTimeLeft(t, timeout.addr(), deadline);
  return r;
}

}  // namespace moat
