#include "fs/hostfs/host_io.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace moat {
namespace {

// One call of this size at most: keeps a transfer that nothing can interrupt short.
constexpr size_t kMaxTransfer = 4 << 20;

size_t TotalOf(const iovec* v, int count) {
  size_t n = 0;
  for (int i = 0; i < count; ++i) n += v[i].iov_len;
  return n;
}

// preadv2 and pwritev2 are the sentry's only calls for file data; see host_calls.inc.
Result<size_t> Transfer(long number, int fd, const iovec* v, int count, int64_t offset, int flags) {
  for (;;) {
    long n = syscall(number, fd, v, count, offset, offset >> 63, flags);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) return HostErrno();
  }
}

// All that the guest's side still wants, piece by piece; less when the host gives or takes less. `pieces` is
// IoDest::Fill or IoSource::Drain.
template <typename Guest>
Result<size_t> Move(long number, int fd, Guest& guest, Result<size_t> (Guest::*pieces)(size_t, SegmentIo),
                    int64_t offset, int flags) {
  size_t done = 0;
  while (guest.remaining() > 0) {
    size_t asked = 0;
    Result<size_t> n = (guest.*pieces)(kMaxTransfer, [&](const iovec* v, int count) -> Result<size_t> {
      asked = TotalOf(v, count);
      return Transfer(number, fd, v, count, offset < 0 ? offset : offset + static_cast<int64_t>(done), flags);
    });
    if (!n.ok()) {
      if (done != 0) return done;
      return n.error();
    }
    done += *n;
    if (*n < asked || *n == 0) break;
  }
  return done;
}

}  // namespace

Result<size_t> HostRead(int fd, IoDest& dst, int64_t offset, int flags) {
  return Move(SYS_preadv2, fd, dst, &IoDest::Fill, offset, flags);
}

Result<size_t> HostWrite(int fd, IoSource& src, int64_t offset, int flags) {
  return Move(SYS_pwritev2, fd, src, &IoSource::Drain, offset, flags);
}

}  // namespace moat
