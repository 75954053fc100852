#include "sentry/syscalls/file_io.h"

#include <sys/epoll.h>

#include "fs/vfs/notify.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/thread_group.h"

namespace moat {

void RaiseWriteSignal(Task& t, Errno e) {
  int signo = 0;
  if (e == kEPIPE) signo = SIGPIPE;
  if (e == kEFBIG && t.thread_group().rlimits().Soft(RLIMIT_FSIZE) != ~uint64_t{0}) signo = SIGXFSZ;
  if (signo != 0) (void)t.SendSignal(UserSigInfo(signo, SI_USER, t.tgid(), t.user_ns().FromKuid(t.cred().uid)));
}

Result<int64_t> ReadFile(Task& t, File& file, IoDest& dst, IoPosition at, bool may_block) {
  Task::FsCall fs(t);
  auto once = [&] { return at.explicit_offset ? file.PRead(fs, dst, at.offset) : file.Read(fs, dst); };
  Result<size_t> n = once();
  if (!n.ok() && n.error() == kEAGAIN && may_block && !file.nonblocking()) [[unlikely]] {
    n = BlockingOp(t, file.wait_queue(), EPOLLIN | EPOLLRDHUP, kNoDeadline, once);
  }
  t.io().CountRead(n.value_or(0));
  if (!n.ok()) return n.error();
  if (*n != 0 && notify::AnyWatch()) notify::EmitOnPath(file.path(), IN_ACCESS);
  return static_cast<int64_t>(*n);
}

Result<int64_t> WriteFile(Task& t, File& file, IoSource& src, IoPosition at, bool may_block) {
  Task::FsCall fs(t);
  bool block = may_block && !file.nonblocking();
  size_t done = 0;
  // Counted here: a file that throws the bytes away (/dev/null) need not take them out of `src`.
  const size_t total = src.remaining();
  auto once = [&] {
    return at.explicit_offset ? file.WriteAt(fs, src, at.offset + static_cast<int64_t>(done)) : file.Write(fs, src);
  };
  Errno error = Errno::kOK;
  for (;;) {
    Result<size_t> n = once();
    if (!n.ok() && n.error() == kEAGAIN && block) n = BlockingOp(t, file.wait_queue(), EPOLLOUT, kNoDeadline, once);
    if (!n.ok()) {
      RaiseWriteSignal(t, n.error());
      error = n.error();
      break;
    }
    done += *n;
    // A blocking stream takes all; a short write of anything else is the answer.
    if (*n == 0 || done >= total || src.remaining() == 0 || !block) break;
  }
  t.io().CountWrite(done);
  if (done == 0 && error != Errno::kOK) return error;
  if (done != 0 && notify::AnyWatch()) notify::EmitOnPath(file.path(), IN_MODIFY);
  return static_cast<int64_t>(done);
}

}  // namespace moat
