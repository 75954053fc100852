#include "sentry/kernel/pidfd.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include "fs/anon/anon_inode.h"
#include "sentry/kernel/kernel.h"

namespace moat {

PidFile::PidFile(VfsPath path, int flags, Kernel& kernel, RefPtr<Pid> pid)
    : File(std::move(path), OpenFlags{flags}), kernel_(kernel), pid_(std::move(pid)) {}

Result<RefPtr<Pid>> ProcessOf(File& f) {
  if (PidFile* pidfd = PidFile::Cast(f)) return pidfd->pid();
  RefPtr<Inode> inode = f.inode();
  auto* directory = dynamic_cast<ProcessDirectory*>(inode.get());
  RefPtr<Pid> pid = directory != nullptr ? directory->pid() : nullptr;
  if (!pid) return kEBADF;
  return pid;
}

Result<RefPtr<PidFile>> PidFile::Create(Kernel& kernel, RefPtr<Pid> pid, int flags) {
  return MakeRef<PidFile>(AnonInodePath("pidfd"), flags, kernel, std::move(pid));
}

EventMask PidFile::Poll(EventMask interest) {
  MutexLock lock(kernel_.tree_mutex());
  const ThreadGroup* group = pid_->thread_group;
  EventMask ready = 0;
  if (group == nullptr) ready = EPOLLIN | EPOLLHUP;
  if (group != nullptr && group->IsZombie()) ready = EPOLLIN;
  return ready & (interest | EPOLLHUP);
}

std::string PidFile::FdInfo() const {
  bool alive = false;
  {
    MutexLock lock(kernel_.tree_mutex());
    alive = pid_->thread_group != nullptr;
  }
  std::string text = fmt::format("Pid:\t{}\nNSpid:\t{}", alive ? pid_->nr() : -1, alive ? pid_->nr() : -1);
  return text + "\n";
}

}  // namespace moat
