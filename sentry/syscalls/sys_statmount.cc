// listmount(2), statmount(2).
#include <linux/mount.h>

#include <algorithm>
#include <cstring>

#include "platform/abi/mount.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/namespace_file.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

// <sys/mount.h> and <linux/mount.h> cannot be included together; these are mount(2)'s bits.
constexpr uint64_t kReadOnly = 1, kNoSuid = 2, kNoDev = 4, kNoExec = 8, kNoSymFollow = 256, kNoAtime = 1024,
                   kNoDirAtime = 2048, kUnbindable = 1 << 17, kPrivate = 1 << 18, kSlave = 1 << 19, kShared = 1 << 20,
                   kRelatime = 1 << 21;
constexpr int kMountNamespace = 0x00020000;  // CLONE_NEWNS

constexpr uint64_t kSupported = abi::kStatmountSbBasic | abi::kStatmountMntBasic | abi::kStatmountPropagateFrom |
                                abi::kStatmountMntRoot | abi::kStatmountMntPoint | abi::kStatmountFsType |
                                abi::kStatmountMntNsId | abi::kStatmountMntOpts | abi::kStatmountFsSubtype |
                                abi::kStatmountSbSource | abi::kStatmountOptArray | abi::kStatmountOptSecArray |
                                abi::kStatmountSupportedMask | abi::kStatmountMntUidmap | abi::kStatmountMntGidmap;
constexpr uint64_t kStrings = abi::kStatmountMntRoot | abi::kStatmountMntPoint | abi::kStatmountFsType |
                              abi::kStatmountMntOpts | abi::kStatmountFsSubtype | abi::kStatmountSbSource |
                              abi::kStatmountOptArray | abi::kStatmountOptSecArray | abi::kStatmountMntUidmap |
                              abi::kStatmountMntGidmap;

Result<abi::MntIdReq> ReadRequest(Task& t, GuestAddr addr) {
  uint32_t size;
  if (t.memory().CopyIn(&size, addr, sizeof size) != sizeof size) return kEFAULT;
  if (size > kPageSize) return kE2BIG;
  if (size < abi::kMntIdReqSizeVer0) return kEINVAL;
  std::byte raw[kPageSize] = {};
  if (t.memory().CopyIn(raw, addr, size) != size) return kEFAULT;
  for (size_t i = sizeof(abi::MntIdReq); i < size; ++i) {
    if (raw[i] != std::byte{0}) return kE2BIG;
  }
  abi::MntIdReq req;
  memcpy(&req, raw, sizeof req);
  if (req.mnt_ns_fd != 0 && req.mnt_ns_id != 0) return kEINVAL;
  if (req.mnt_id <= Mount::kUniqueIdOffset) return kEINVAL;
  return req;
}

// The namespace that is asked about, and the root directory that its paths are seen from.
struct Scope {
  RefPtr<MountNamespace> ns;
  VfsPath root;
};
Result<Scope> FindScope(Task& t, const VfsContext& ctx, const abi::MntIdReq& req) {
  Scope s{RefPtr<MountNamespace>(&ctx.mounts), ctx.root};
  if (req.mnt_ns_fd != 0) {
    RefPtr<File> file = TRY(t.GetFile(static_cast<int>(req.mnt_ns_fd)));
    NamespaceFile* ns_file = NamespaceFile::Cast(*file);
    if (ns_file == nullptr || ns_file->kind() != kMountNamespace) return kEINVAL;
    s.ns = RefPtr<MountNamespace>(static_cast<MountNamespace*>(ns_file->ns().get()));
  } else if (req.mnt_ns_id != 0) {
    s.ns = MountNamespace::FindById(req.mnt_ns_id);
    if (!s.ns) return kENOENT;
  }
  if (s.ns == &ctx.mounts) return s;
  if (!t.cred().HasCapabilityIn(CAP_SYS_ADMIN, s.ns->owner())) return kENOENT;
  s.root = s.ns->root();
  return s;
}

uint64_t Attributes(uint64_t flags) {
  uint64_t a = 0;
  if (flags & kReadOnly) a |= MOUNT_ATTR_RDONLY;
  if (flags & kNoSuid) a |= MOUNT_ATTR_NOSUID;
  if (flags & kNoDev) a |= MOUNT_ATTR_NODEV;
  if (flags & kNoExec) a |= MOUNT_ATTR_NOEXEC;
  if (flags & kNoDirAtime) a |= MOUNT_ATTR_NODIRATIME;
  if (flags & kNoSymFollow) a |= 0x00200000;  // MOUNT_ATTR_NOSYMFOLLOW
  if (flags & kNoAtime) {
    a |= MOUNT_ATTR_NOATIME;
  } else if ((flags & kRelatime) == 0) {
    a |= MOUNT_ATTR_STRICTATIME;
  }
  return a;
}

uint64_t Propagation(const MountNamespace::MountInfo& m) {
  uint64_t p =
      (m.peer_group != 0 ? kShared : 0) | (m.master_group != 0 ? kSlave : 0) | (m.unbindable ? kUnbindable : 0);
  return p != 0 ? p : kPrivate;
}

// The answer: the structure and the strings behind it.
struct Answer {
  abi::Statmount s{};
  std::string text = std::string(1, '\0');  // offset 0 is the empty string

  uint32_t Add(uint64_t bit, std::string_view value) {
    s.mask |= bit;
    uint32_t at = static_cast<uint32_t>(text.size());
    text.append(value);
    text += '\0';
    return at;
  }
};

void AddStrings(Answer& a, uint64_t mask, const MountNamespace::MountInfo& m) {
  if (mask & abi::kStatmountFsType) a.s.fs_type = a.Add(abi::kStatmountFsType, m.fs_type);
  if (mask & abi::kStatmountMntRoot) a.s.mnt_root = a.Add(abi::kStatmountMntRoot, m.root);
  // What the caller's root does not contain has no name.
  if (mask & abi::kStatmountMntPoint) {
    bool reached = !m.mount_point.starts_with("(unreachable)");
    a.s.mnt_point = a.Add(abi::kStatmountMntPoint, reached ? m.mount_point : "");
  }
  if ((mask & abi::kStatmountSbSource) && !m.source.empty()) a.s.sb_source = a.Add(abi::kStatmountSbSource, m.source);
  if (m.fs_options.empty()) return;
  if (mask & abi::kStatmountMntOpts) a.s.mnt_opts = a.Add(abi::kStatmountMntOpts, m.fs_options);
  if (mask & abi::kStatmountOptArray) {
    std::string array = m.fs_options;
    a.s.opt_num = static_cast<uint32_t>(std::count(array.begin(), array.end(), ',')) + 1;
    std::replace(array.begin(), array.end(), ',', '\0');
    a.s.opt_array = a.Add(abi::kStatmountOptArray, array);
  }
}

Result<Answer> Describe(const Scope& scope, const RefPtr<Mount>& mount, uint64_t mask) {
  MountNamespace::MountInfo m = scope.ns->Describe(mount, scope.root);
  Answer a;
  if (mask & abi::kStatmountSbBasic) {
    a.s.mask |= abi::kStatmountSbBasic;
    a.s.sb_dev_major = m.device.major;
    a.s.sb_dev_minor = m.device.minor;
    a.s.sb_magic = TRY(mount->fs().StatFs()).type;
    a.s.sb_flags = m.fs_read_only ? kReadOnly : 0;
  }
  if (mask & abi::kStatmountMntBasic) {
    a.s.mask |= abi::kStatmountMntBasic;
    a.s.mnt_id = mount->unique_id();
    a.s.mnt_parent_id = m.parent_unique_id;
    a.s.mnt_id_old = static_cast<uint32_t>(m.id);
    a.s.mnt_parent_id_old = static_cast<uint32_t>(m.parent_id);
    a.s.mnt_attr = Attributes(m.flags);
    a.s.mnt_propagation = Propagation(m);
    a.s.mnt_peer_group = static_cast<uint64_t>(m.peer_group);
    a.s.mnt_master = static_cast<uint64_t>(m.master_group);
  }
  if (mask & abi::kStatmountPropagateFrom) {
    a.s.mask |= abi::kStatmountPropagateFrom;
    a.s.propagate_from = static_cast<uint64_t>(m.propagates_from);
  }
  if (mask & abi::kStatmountMntNsId) {
    a.s.mask |= abi::kStatmountMntNsId;
    a.s.mnt_ns_id = scope.ns->id();
  }
  if (mask & abi::kStatmountSupportedMask) {
    a.s.mask |= abi::kStatmountSupportedMask;
    a.s.supported_mask = kSupported;
  }
  AddStrings(a, mask, m);
  return a;
}

}  // namespace

Result<int64_t> SysStatmount(Task& t, GuestAddr request, GuestAddr buf, size_t size, unsigned flags) {
  if (flags != 0) return kEINVAL;
  abi::MntIdReq req = TRY(ReadRequest(t, request));
  Task::FsCall fs(t);
  Scope scope = TRY(FindScope(t, fs, req));
  bool strings = (req.param & kStrings) != 0;
  if (strings && size == sizeof(abi::Statmount)) return kEOVERFLOW;
  RefPtr<Mount> mount = scope.ns->Find(req.mnt_id);
  if (!mount) return kENOENT;
  if (!scope.ns->Reaches(scope.root, *mount) && !t.cred().HasCapabilityIn(CAP_SYS_ADMIN, scope.ns->owner())) {
    return kEPERM;
  }
  Answer a = TRY(Describe(scope, mount, req.param));
  a.s.size = sizeof a.s;
  if (strings) {
    if (sizeof a.s + a.text.size() > size) return kEOVERFLOW;
    a.s.size += static_cast<uint32_t>(a.text.size());
    if (t.memory().CopyOut(buf + sizeof a.s, a.text.data(), a.text.size()) != a.text.size()) return kEFAULT;
  }
  size_t fixed = std::min(size, sizeof a.s);
  if (t.memory().CopyOut(buf, &a.s, fixed) != fixed) return kEFAULT;
  return 0;
}

Result<int64_t> SysListmount(Task& t, GuestAddr request, GuestAddr ids, size_t count, unsigned flags) {
  constexpr size_t kMaxCount = 1'000'000;
  if (flags & ~abi::kListmountReverse) return kEINVAL;
  if (count > kMaxCount) return kEOVERFLOW;
  abi::MntIdReq req = TRY(ReadRequest(t, request));
  if (req.param != 0 && req.param <= Mount::kUniqueIdOffset) return kEINVAL;
  Task::FsCall fs(t);
  Scope scope = TRY(FindScope(t, fs, req));
  VfsPath place = scope.root;
  RefPtr<Mount> mount;
  if (req.mnt_id != abi::kLsmtRoot) {
    mount = scope.ns->Find(req.mnt_id);
    if (!mount) return kENOENT;
    place = VfsPath(mount, mount->root());
    if (!scope.ns->Reaches(scope.root, *mount) && !t.cred().HasCapabilityIn(CAP_SYS_ADMIN, scope.ns->owner())) {
      return kEPERM;
    }
  }
  std::vector<uint64_t> all = scope.ns->ListBelow(place, mount.get());
  // `param` is the last id of the answer before.
  if (flags & abi::kListmountReverse) {
    std::reverse(all.begin(), all.end());
    if (req.param != 0) std::erase_if(all, [&](uint64_t id) { return id >= req.param; });
  } else {
    std::erase_if(all, [&](uint64_t id) { return id <= req.param; });
  }
  if (all.size() > count) all.resize(count);
  size_t bytes = all.size() * sizeof(uint64_t);
  if (t.memory().CopyOut(ids, all.data(), bytes) != bytes) return kEFAULT;
  return static_cast<int64_t>(all.size());
}

}  // namespace moat
