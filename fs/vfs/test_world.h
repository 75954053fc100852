// A small world for unit tests of the file systems: a memory file, a tmpfs as the root of a mount namespace, root's
// credentials, and the calls of vfs.h without their boilerplate.
#ifndef MOAT_FS_VFS_TEST_WORLD_H_
#define MOAT_FS_VFS_TEST_WORLD_H_

#include <fcntl.h>
#include <sys/mman.h>

#include <memory>
#include <string>

#include "fs/tmpfs/tmpfs.h"
#include "fs/vfs/vfs.h"
#include "platform/memory/backing.h"
#include "platform/memory/safe_copy.h"

namespace moat {

inline MemoryFile& TestMemory() {
  static MemoryFile* memory = [] {
    InstallSafeCopyHandlers();
    MemoryFile* m = MemoryFile::Create(*NewMemoryBacking(), 0).value().release();
    RegisterTmpfs(*m);
    return m;
  }();
  return *memory;
}

class TestWorld {
 public:
  explicit TestWorld(TmpfsFs::Options options = {.mode = 0755})
      : user_ns(UserNamespace::CreateRoot()),
        cred(Credentials::CreateRoot(user_ns)->Copy()),
        fs(TmpfsFs::Create(TestMemory(), options).value()),
        mounts(MountNamespace::Create(fs, "test", 0, user_ns)),
        root(mounts->root()),
        cwd(root) {}

  VfsContext Ctx() {
    VfsContext ctx{.cred = *cred, .mounts = *mounts, .root = root, .cwd = cwd};
    ctx.pid = pid;
    ctx.file_size_limit = file_size_limit;
    return ctx;
  }
  // An ordinary user without capabilities.
  void Become(Kuid uid, Kgid gid) {
    auto c = cred->Copy();
    c->uid = c->euid = c->suid = c->fsuid = uid;
    c->gid = c->egid = c->sgid = c->fsgid = gid;
    c->effective = c->permitted = uid == 0 ? CapabilitySet::All() : CapabilitySet::None();
    cred = c;
  }

  Result<RefPtr<File>> Open(std::string_view path, int flags, uint32_t mode = 0644, uint64_t resolve = 0) {
    return vfs::Open(Ctx(), cwd, path, {flags, mode, resolve});
  }
  Errno Make(std::string_view path, std::string_view text = {}) {
    auto f = Open(path, O_CREAT | O_WRONLY);
    if (!f.ok()) return f.error();
    return text.empty() ? Errno::kOK : Write(**f, text).error();
  }
  Errno Mkdir(std::string_view path, uint32_t mode = 0755) { return vfs::Mkdir(Ctx(), cwd, path, mode).error(); }
  Errno Symlink(std::string_view to, std::string_view path) { return vfs::Symlink(Ctx(), to, cwd, path).error(); }
  Errno Unlink(std::string_view path) { return vfs::Unlink(Ctx(), cwd, path).error(); }
  Errno Rmdir(std::string_view path) { return vfs::Rmdir(Ctx(), cwd, path).error(); }
  Errno Rename(std::string_view a, std::string_view b, unsigned flags = 0) {
    return vfs::Rename(Ctx(), cwd, a, cwd, b, flags).error();
  }
  Errno Link(std::string_view a, std::string_view b) {
    auto p = Resolve(a, false);
    return p.ok() ? vfs::Link(Ctx(), *p, cwd, b).error() : p.error();
  }
  Result<VfsPath> Resolve(std::string_view path, bool follow = true, uint64_t resolve = 0) {
    vfs::ResolveOptions o;
    o.follow_last = follow;
    o.resolve = resolve;
    return vfs::Resolve(Ctx(), cwd, path, o);
  }
  Result<Kstat> Stat(std::string_view path, bool follow = true) {
    VfsPath p = TRY(Resolve(path, follow));
    return vfs::Stat(Ctx(), p);
  }
  Result<size_t> Write(File& f, std::string_view text) {
    BufferIoSource src(text.data(), text.size());
    return f.Write(Ctx(), src);
  }
  Result<size_t> PWrite(File& f, std::string_view text, int64_t at) {
    BufferIoSource src(text.data(), text.size());
    return f.WriteAt(Ctx(), src, at);
  }
  std::string PRead(File& f, int64_t at, size_t n = 1 << 16) {
    std::string out(n, '\0');
    BufferIoDest dst(out.data(), n);
    out.resize(f.PRead(Ctx(), dst, at).value_or(0));
    return out;
  }
  std::string Read(File& f, size_t n) {
    std::string out(n, '\0');
    BufferIoDest dst(out.data(), n);
    out.resize(f.Read(Ctx(), dst).value_or(0));
    return out;
  }
  std::string Contents(std::string_view path) {
    auto f = Open(path, O_RDONLY);
    return f.ok() ? PRead(**f, 0) : "<" + std::string(ErrnoName(f.error())) + ">";
  }

  RefPtr<UserNamespace> user_ns;
  RefPtr<const Credentials> cred;
  RefPtr<TmpfsFs> fs;
  RefPtr<MountNamespace> mounts;
  VfsPath root, cwd;
  int32_t pid = 1;
  uint64_t file_size_limit = ~uint64_t{0};
};

}  // namespace moat

#endif  // MOAT_FS_VFS_TEST_WORLD_H_
