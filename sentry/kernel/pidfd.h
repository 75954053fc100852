// Pidfd files: descriptors that refer to a process. Source: pidfd_open(2), clone(2) CLONE_PIDFD.
#ifndef MOAT_SENTRY_KERNEL_PIDFD_H_
#define MOAT_SENTRY_KERNEL_PIDFD_H_

#include "fs/vfs/file.h"
#include "sentry/kernel/pid_namespace.h"

namespace moat {

class Kernel;

// What stands for a process besides a pidfd: an inode of /proc/<pid>, for pidfd_send_signal(2).
class ProcessDirectory {
 public:
  virtual ~ProcessDirectory() = default;
  // Null when it does not stand for a process (a thread's directory).
  virtual RefPtr<Pid> pid() = 0;
};

// The process that a pidfd, or a descriptor of its directory in /proc, refers to. kEBADF.
Result<RefPtr<Pid>> ProcessOf(File& f);

class PidFile final : public File {
 public:
  PidFile(VfsPath path, int flags, Kernel& kernel, RefPtr<Pid> pid);
  static Result<RefPtr<PidFile>> Create(Kernel& kernel, RefPtr<Pid> pid, int flags);
  // Null when `f` is no pidfd.
  static PidFile* Cast(File& f) { return dynamic_cast<PidFile*>(&f); }
  const RefPtr<Pid>& pid() const { return pid_; }
  Kernel& kernel() const { return kernel_; }

  EventMask Poll(EventMask interest) override;
  WaitQueue& wait_queue() override { return pid_->wait_queue(); }
  std::string FdInfo() const override;

 private:
  Kernel& kernel_;
  const RefPtr<Pid> pid_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_PIDFD_H_
