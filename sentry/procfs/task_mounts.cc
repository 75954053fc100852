// /proc/<pid>/{mounts,mountinfo,mountstats}: of the mount namespace and root that the process has when the file is
// opened; poll(2) reports changes since the last read. Source: proc_pid_mounts(5), proc_pid_mountinfo(5).
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/mount.h>

#include "fs/vfs/mount.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

enum class Format { kMounts, kMountinfo, kMountstats };

std::string Escape(std::string_view s) {
  std::string out;
  for (char c : s) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\\' || c == '#') {
      out += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

std::string MountOptions(uint64_t flags, bool read_only) {
  std::string s = read_only ? "ro" : "rw";
  if (flags & MS_NOSUID) s += ",nosuid";
  if (flags & MS_NODEV) s += ",nodev";
  if (flags & MS_NOEXEC) s += ",noexec";
  if (flags & MS_NOATIME) s += ",noatime";
  if (flags & MS_NODIRATIME) s += ",nodiratime";
  if (flags & MS_RELATIME) s += ",relatime";
  if (flags & 256 /* MS_NOSYMFOLLOW */) s += ",nosymfollow";
  return s;
}

std::string Line(const MountNamespace::MountInfo& m, Format format) {
  const bool ro = (m.flags & MS_RDONLY) != 0;
  const std::string source = m.source.empty() ? "none" : Escape(m.source);
  const std::string fs_options = m.fs_options.empty() ? std::string() : "," + m.fs_options;
  switch (format) {
    case Format::kMounts:
      return fmt::format("{} {} {} {}{} 0 0\n", source, Escape(m.mount_point), m.fs_type,
                         MountOptions(m.flags, ro || m.fs_read_only), fs_options);
    case Format::kMountstats:
      return fmt::format("device {} mounted on {} with fstype {}\n", source, Escape(m.mount_point), m.fs_type);
    case Format::kMountinfo:
      break;
  }
  std::string s = fmt::format("{} {} {}:{} {} {} {}", m.id, m.parent_id, m.device.major, m.device.minor, Escape(m.root),
                              Escape(m.mount_point), MountOptions(m.flags, ro));
  if (m.peer_group != 0) s += fmt::format(" shared:{}", m.peer_group);
  if (m.master_group != 0) s += fmt::format(" master:{}", m.master_group);
  if (m.propagates_from != 0 && m.propagates_from != m.master_group) {
    s += fmt::format(" propagate_from:{}", m.propagates_from);
  }
  if (m.unbindable) s += " unbindable";
  return s + fmt::format(" - {} {} {}{}\n", m.fs_type, source, m.fs_read_only ? "ro" : "rw", fs_options);
}

// The text of one opening: namespace and root are fixed here.
class MountsText final : public TextInode {
 public:
  MountsText(FileSystem& fs, uint64_t ino, RefPtr<MountNamespace> ns, VfsPath root, Format format)
      : TextInode(fs, ino, 0444), ns_(std::move(ns)), root_(std::move(root)), format_(format) {}
  Result<std::string> Generate(const VfsContext&) override {
    std::string s;
    for (const auto& m : ns_->Snapshot(root_)) s += Line(m, format_);
    return s;
  }
  MountNamespace& ns() { return *ns_; }

 private:
  const RefPtr<MountNamespace> ns_;
  const VfsPath root_;
  const Format format_;
};

class MountsFile final : public TextFile {
 public:
  MountsFile(VfsPath path, OpenFlags flags, RefPtr<MountsText> text)
      : TextFile(std::move(path), flags, text), ns_(&text->ns()), seen_(ns_->generation()) {}
  EventMask Poll(EventMask interest) override {
    EventMask ready = EPOLLIN | EPOLLRDNORM;
    uint64_t now = ns_->generation();
    if (seen_.exchange(now) != now) ready |= EPOLLERR | EPOLLPRI;
    return ready & (interest | EPOLLERR);
  }
  WaitQueue& wait_queue() override { return ns_->change_queue(); }

 private:
  const RefPtr<MountNamespace> ns_;
  std::atomic<uint64_t> seen_;
};

class MountsInode final : public TaskOwned<PseudoInode> {
 public:
  MountsInode(ProcFs& fs, RefPtr<Task> task, uint64_t ino, uint32_t mode, Format format)
      : TaskOwned(fs, task, S_IFREG, ino, mode), format_(format) {}
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath& path, OpenFlags flags) override {
    RefPtr<MountNamespace> ns = task_->mount_ns();
    RefPtr<FsContext> fs_context = task_->fs_context();
    if (!ns || !fs_context) return kEINVAL;
    auto text = MakeRef<MountsText>(fs(), ino(), std::move(ns), fs_context->root(), format_);
    return RefPtr<File>(MakeRef<MountsFile>(path, flags, std::move(text)));
  }

 private:
  const Format format_;
};

}  // namespace

RefPtr<Inode> MakeMounts(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 901);
  return MakeRef<MountsInode>(fs, std::move(task), ino, 0444u, Format::kMounts);
}
RefPtr<Inode> MakeMountinfo(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 902);
  return MakeRef<MountsInode>(fs, std::move(task), ino, 0444u, Format::kMountinfo);
}
RefPtr<Inode> MakeMountstats(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 903);
  return MakeRef<MountsInode>(fs, std::move(task), ino, 0400u, Format::kMountstats);
}

}  // namespace moat::proc
