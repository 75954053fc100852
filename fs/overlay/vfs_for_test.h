// A mount namespace over one file system, and its operations in a form that tests read well: paths and strings.
#ifndef MOAT_FS_OVERLAY_VFS_FOR_TEST_H_
#define MOAT_FS_OVERLAY_VFS_FOR_TEST_H_

#include <fcntl.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/vfs.h"

namespace moat {

class VfsForTest {
 public:
  explicit VfsForTest(RefPtr<FileSystem> fs)
      : user_ns_(UserNamespace::CreateRoot()),
        cred_(Credentials::CreateRoot(user_ns_)),
        ns_(MountNamespace::Create(std::move(fs), "test", 0, user_ns_)) {}

  VfsContext ctx() const {
    VfsPath root = ns_->root();
    return VfsContext{.cred = *cred_, .mounts = *ns_, .root = root, .cwd = root, .umask = 0};
  }
  MountNamespace& mounts() const { return *ns_; }
  // From here on an ordinary user without capabilities.
  void Become(Kuid uid, Kgid gid) {
    auto cred = cred_->Copy();
    cred->uid = cred->euid = cred->suid = cred->fsuid = uid;
    cred->gid = cred->egid = cred->sgid = cred->fsgid = gid;
    cred->effective = cred->permitted = CapabilitySet::None();
    cred_ = cred;
  }

  Result<RefPtr<File>> Open(std::string_view path, int flags, uint32_t mode = 0644) const {
    VfsContext c = ctx();
    return vfs::Open(c, c.root, path, {.flags = flags, .mode = mode});
  }
  Result<VfsPath> Resolve(std::string_view path, bool follow = false) const {
    VfsContext c = ctx();
    return vfs::Resolve(c, c.root, path, {.follow_last = follow});
  }
  Result<Kstat> Stat(std::string_view path) const {
    VfsPath p = TRY(Resolve(path));
    return vfs::Stat(ctx(), p);
  }
  Result<std::string> ReadFrom(File& file, int64_t offset = 0, size_t n = 1 << 20) const {
    std::string out(n, '\0');
    BufferIoDest dest(out.data(), out.size());
    out.resize(TRY(file.PRead(ctx(), dest, offset)));
    return out;
  }
  Result<size_t> WriteTo(File& file, std::string_view data, int64_t offset = 0) const {
    BufferIoSource source(data.data(), data.size());
    return file.WriteAt(ctx(), source, offset);
  }
  Result<std::string> Read(std::string_view path) const { return ReadFrom(*TRY(Open(path, O_RDONLY))); }
  Result<void> Write(std::string_view path, std::string_view data, int flags = O_CREAT | O_TRUNC) const {
    RefPtr<File> file = TRY(Open(path, O_WRONLY | flags));
    BufferIoSource source(data.data(), data.size());
    if (TRY(file->Write(ctx(), source)) != data.size()) return kEIO;
    return {};
  }
  Result<void> Mkdir(std::string_view path, uint32_t mode = 0755) const {
    VfsContext c = ctx();
    return vfs::Mkdir(c, c.root, path, mode);
  }
  Result<void> Symlink(std::string_view target, std::string_view path) const {
    VfsContext c = ctx();
    return vfs::Symlink(c, target, c.root, path);
  }
  Result<void> Link(std::string_view old_path, std::string_view path) const {
    VfsContext c = ctx();
    return vfs::Link(c, TRY(Resolve(old_path)), c.root, path);
  }
  Result<void> Unlink(std::string_view path) const {
    VfsContext c = ctx();
    return vfs::Unlink(c, c.root, path);
  }
  Result<void> Rmdir(std::string_view path) const {
    VfsContext c = ctx();
    return vfs::Rmdir(c, c.root, path);
  }
  Result<void> Rename(std::string_view from, std::string_view to, unsigned flags = 0) const {
    VfsContext c = ctx();
    return vfs::Rename(c, c.root, from, c.root, to, flags);
  }
  Result<void> SetAttr(std::string_view path, const AttrChange& change) const {
    return vfs::SetAttr(ctx(), TRY(Resolve(path)), change);
  }
  Result<void> Chmod(std::string_view path, uint32_t mode) const {
    AttrChange change;
    change.mode = mode;
    return SetAttr(path, change);
  }
  Result<void> Truncate(std::string_view path, uint64_t size) const {
    AttrChange change;
    change.size = size;
    return SetAttr(path, change);
  }
  Result<std::string> Readlink(std::string_view path) const { return vfs::Readlink(ctx(), TRY(Resolve(path))); }

  struct Listed {
    std::string name;
    uint64_t ino;
    uint8_t type;
  };
  // Sorted, without "." and ".."; `room` entries a call.
  Result<std::vector<Listed>> List(std::string_view path, size_t room = 7) const {
    RefPtr<File> dir = TRY(Open(path, O_RDONLY | O_DIRECTORY));
    struct Sink final : DirEntrySink {
      bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
        if (left-- == 0) return false;
        if (name != "." && name != "..") out.push_back({std::string(name), ino, type});
        any = true;
        return true;
      }
      std::vector<Listed> out;
      size_t left = 0;
      bool any = false;
    } sink;
    do {
      sink.left = room;
      sink.any = false;
      TRY(dir->ReadDir(ctx(), sink));
    } while (sink.any);
    std::sort(sink.out.begin(), sink.out.end(), [](const Listed& a, const Listed& b) { return a.name < b.name; });
    return sink.out;
  }
  // "a b c": the names of a directory.
  std::string Names(std::string_view path, size_t room = 7) const {
    Result<std::vector<Listed>> entries = List(path, room);
    if (!entries.ok()) return std::string(ErrnoName(entries.error()));
    std::string out;
    for (const Listed& e : *entries) out += (out.empty() ? "" : " ") + e.name;
    return out;
  }

 private:
  RefPtr<UserNamespace> user_ns_;
  RefPtr<const Credentials> cred_;
  RefPtr<MountNamespace> ns_;
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_VFS_FOR_TEST_H_
