// Source: execve(2), execveat(2).
#include <fcntl.h>

#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task_exec.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {

namespace {

// argv and envp: pointers up to a null one. kE2BIG past what the loader can place on the stack.
Result<std::vector<std::string>> ReadStrings(Task& t, GuestAddr array, uint64_t* budget) {
  std::vector<std::string> strings;
  if (array == 0) return strings;  // Linux takes a null array for an empty one
  GuestMemory& memory = t.memory();
  for (size_t i = 0;; ++i) {
    const GuestAddr at = TRY(UserIn<uint64_t>(array).ReadAt(memory, i));
    if (at == 0) return strings;
    Result<std::string> s = UserString(at).Read(memory, kMaxArgStrlen);
    if (!s.ok()) return s.error() == kENAMETOOLONG ? kE2BIG : s.error();
    const uint64_t cost = s->size() + 1 + sizeof(uint64_t);
    if (cost > *budget) return kE2BIG;
    *budget -= cost;
    strings.push_back(std::move(*s));
  }
}

Result<int64_t> Exec(Task& t, int dirfd, UserString path, GuestAddr argv, GuestAddr envp, int flags) {
  if ((flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0) return kEINVAL;
  GuestMemory& memory = t.memory();
  const std::string name = TRY(path.ReadPath(memory));
  ExecRequest request;
  request.filename = name;
  if (dirfd != AT_FDCWD && !name.starts_with('/')) {
    // What a script's interpreter is given to open.
    request.filename = "/dev/fd/" + std::to_string(dirfd);
    if (!name.empty()) request.filename += "/" + name;
    bool cloexec = false;
    if (t.fds().Get(dirfd, &cloexec) && cloexec) request.filename_inaccessible = true;
  }
  {
    Task::FsCall fs(t);
    VfsPath place = TRY(ResolveArgument(t, fs, dirfd, path, flags));
    if ((flags & AT_SYMLINK_NOFOLLOW) != 0 && place.dentry->inode() && place.dentry->inode()->is_symlink())
      return kELOOP;
    request.file = TRY(ExecutableFile::Open(fs, place));
  }
  uint64_t budget = ArgumentLimit(t.mm_limits().stack);
  request.argv = TRY(ReadStrings(t, argv, &budget));
  request.envp = TRY(ReadStrings(t, envp, &budget));
  if (request.argv.empty()) request.argv.emplace_back();  // since Linux 5.18: argv[0] is always there
  TRY(TaskExec::Run(t, std::move(request)));
  return 0;
}

}  // namespace

Result<int64_t> SysExecve(Task& t, UserString path, GuestAddr argv, GuestAddr envp) {
  return Exec(t, AT_FDCWD, path, argv, envp, 0);
}

Result<int64_t> SysExecveat(Task& t, DirFdNum dirfd, UserString path, GuestAddr argv, GuestAddr envp,
                            AtFlagBits flags) {
  return Exec(t, ToInt(dirfd), path, argv, envp, Raw(flags));
}

}  // namespace moat
