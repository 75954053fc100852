// /proc/<pid>/fd and fdinfo. Source: proc_pid_fd(5), proc_pid_fdinfo(5).
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <charconv>

#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

constexpr uint32_t kFdDirIndex = 1100, kFdInfoDirIndex = 1101;
// Beyond every index of TaskIno: the descriptor's number moves the inode number up.
constexpr uint64_t kFdInoBase = uint64_t{1} << 52;
constexpr uint64_t kFdInfoInoBase = uint64_t{1} << 53;

uint64_t FdIno(uint64_t base, Task& task, int fd) {
  return base | (static_cast<uint64_t>(task.RootTid()) << 20) | static_cast<uint32_t>(fd);
}

int ParseFd(std::string_view name) {
  int fd = -1;
  if (name.empty() || (name.size() > 1 && name[0] == '0')) return -1;
  auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), fd);
  return ec == std::errc() && end == name.data() + name.size() && fd >= 0 ? fd : -1;
}

RefPtr<File> FileOf(Task& task, int fd, bool* cloexec = nullptr) {
  RefPtr<FdTable> table = task.fd_table();
  return table ? table->Get(fd, cloexec) : nullptr;
}

class FdLink final : public TaskFileLink {
 public:
  FdLink(ProcFs& fs, RefPtr<Task> task, int fd, uint32_t mode)
      : TaskFileLink(fs, task, S_IFLNK, FdIno(kFdInoBase, *task, fd), mode), fd_(fd) {}

 private:
  RefPtr<File> Find() override { return FileOf(*task_, fd_); }
  const int fd_;
};

class FdInfoText final : public TaskOwned<TextInode> {
 public:
  FdInfoText(ProcFs& fs, RefPtr<Task> task, int fd)
      : TaskOwned(fs, task, FdIno(kFdInfoInoBase, *task, fd), 0400), fd_(fd) {}
  bool polled() const override { return false; }
  Result<void> CheckOpen(const VfsContext& ctx, OpenFlags) override { return CheckTaskAccess(ctx, *task_); }
  Result<std::string> Generate(const VfsContext&) override {
    bool cloexec = false;
    RefPtr<File> file = FileOf(*task_, fd_, &cloexec);
    if (!file) return kENOENT;
    const VfsPath& path = file->path();
    RefPtr<Inode> inode = file->inode();
    // On 64-bit Linux every file is a large file (0100000 is not zero in the kernel's own headers).
    int flags = file->flags() | (cloexec ? O_CLOEXEC : 0) | 0100000;
    std::string s = fmt::format("pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n", file->offset(), flags,
                                path.mount ? path.mount->id() : 0, inode ? inode->ino() : 0);
    return s + file->FdInfo();
  }

 private:
  const int fd_;
};

class FdDir final : public TaskOwned<PseudoDir> {
 public:
  FdDir(ProcFs& fs, RefPtr<Task> task, bool thread, bool info)
      : TaskOwned(fs, task, TaskIno(*task, thread, info ? kFdInfoDirIndex : kFdDirIndex), info ? 0555 : 0500),
        info_(info) {}

  // A process may always look at its own descriptors, whatever user it has become.
  Result<void> CheckPermission(const VfsContext& ctx, int mask) override {
    Task* caller = Caller(ctx);
    if (caller != nullptr && &caller->thread_group() == &task_->thread_group()) return {};
    TRY(CheckTaskAccess(ctx, *task_));
    return PseudoDir::CheckPermission(ctx, mask);
  }

  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    int fd = ParseFd(name);
    RefPtr<File> file = fd >= 0 ? FileOf(*task_, fd) : nullptr;
    if (!file) return kENOENT;
    if (info_) return RefPtr<Inode>(MakeRef<FdInfoText>(proc_, task_, fd));
    uint32_t mode = (file->readable() ? 0500 : 0) | (file->writable() ? 0300 : 0);
    if (OpenFlags{file->flags()}.path_only()) mode = 0100;
    return RefPtr<Inode>(MakeRef<FdLink>(proc_, task_, fd, mode));
  }

  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override {
    RefPtr<FdTable> table = task_->fd_table();
    if (!table) return {};
    for (int fd : table->OpenFds()) {
      int64_t position = 2 + int64_t{fd};
      if (position < from) continue;
      out.push_back({fmt::format("{}", fd), FdIno(info_ ? kFdInfoInoBase : kFdInoBase, *task_, fd),
                     static_cast<uint8_t>(info_ ? DT_REG : DT_LNK), position});
    }
    return {};
  }

  // stat(2) shows the number of open descriptors as the size (since Linux 6.2).
  Result<Kstat> GetAttr() override {
    Kstat s = TRY(PseudoDir::GetAttr());
    RefPtr<FdTable> table = task_->fd_table();
    if (!info_ && table) s.size = table->OpenFds().size();
    return s;
  }

 private:
  const bool info_;
};

}  // namespace

RefPtr<Inode> MakeFdDir(ProcFs& fs, RefPtr<Task> task, bool thread) {
  return MakeRef<FdDir>(fs, std::move(task), thread, false);
}
RefPtr<Inode> MakeFdInfoDir(ProcFs& fs, RefPtr<Task> task, bool thread) {
  return MakeRef<FdDir>(fs, std::move(task), thread, true);
}

}  // namespace moat::proc
