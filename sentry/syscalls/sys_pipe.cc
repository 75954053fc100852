// pipe(2), pipe2(2), memfd_create(2).
#include <fcntl.h>
#include <linux/memfd.h>

#include "fs/pipe/pipe.h"
#include "fs/tmpfs/memfd.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#define MFD_EXEC 0x0010U
#endif

namespace moat {

Result<int64_t> SysPipe2(Task& t, GuestAddr out, int flags) {
  if (flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
    return (flags & O_EXCL) != 0 ? kENOPKG : kEINVAL;  // O_NOTIFICATION_PIPE
  bool cloexec = (flags & O_CLOEXEC) != 0;
  PipePair pipe = CreatePipe(flags & (O_NONBLOCK | O_DIRECT), t.cred().fsuid, t.cred().fsgid);
  int fds[2];
  fds[0] = TRY(t.InstallFd(pipe.reader, cloexec));
  Result<int> second = t.InstallFd(pipe.writer, cloexec);
  if (!second.ok()) {
    t.fds().Remove(fds[0]);
    return second.error();
  }
  fds[1] = *second;
  if (t.memory().CopyOut(out, fds, sizeof fds) != sizeof fds) {
    t.fds().Remove(fds[0]);
    t.fds().Remove(fds[1]);
    return kEFAULT;
  }
  return 0;
}

Result<int64_t> SysPipe(Task& t, GuestAddr out) { return SysPipe2(t, out, 0); }

Result<int64_t> SysMemfdCreate(Task& t, UserString name, unsigned flags) {
  constexpr size_t kMaxName = 255 - sizeof("memfd:") + 1;
  constexpr unsigned kKnown = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC;
  constexpr unsigned kSizeOfPages = MFD_HUGE_MASK << MFD_HUGE_SHIFT;
  const bool huge = (flags & MFD_HUGETLB) != 0;
  if (flags & ~(huge ? kKnown | MFD_HUGETLB | kSizeOfPages : kKnown)) return kEINVAL;
  if ((flags & MFD_NOEXEC_SEAL) && (flags & MFD_EXEC)) return kEINVAL;
  Result<std::string> text = name.Read(t.memory(), kMaxName + 1);
  if (!text.ok()) return text.error() == kENAMETOOLONG ? kEINVAL : text.error();
  if (huge) return kENODEV;  // there are huge pages of no size
  Task::FsCall fs(t);
  RefPtr<File> file = TRY(CreateMemfd(fs, *text, flags));
  return TRY(t.InstallFd(std::move(file), (flags & MFD_CLOEXEC) != 0));
}

}  // namespace moat
