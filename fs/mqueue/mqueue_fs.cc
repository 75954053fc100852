#include "fs/mqueue/mqueue_fs.h"

#include <dirent.h>
#include <fmt/format.h>

namespace moat {
namespace {
constexpr uint64_t kMqueueMagic = 0x19800202;  // ipc/mqueue.c
}

// --- inode ---

MqueueInode::MqueueInode(FileSystem& fs, RefPtr<MessageQueue> queue, uint32_t mode, Kuid uid, Kgid gid)
    : Inode(fs, S_IFREG, fs.NextIno()),
      queue_(std::move(queue)),
      created_(RealtimeNow()),
      mode_(mode & 0777),
      uid_(uid),
      gid_(gid) {}

Result<Kstat> MqueueInode::GetAttr() {
  Kstat s;
  s.ino = ino();
  s.mode = S_IFREG | mode_.load(std::memory_order_relaxed);
  s.uid = uid_.load(std::memory_order_relaxed);
  s.gid = gid_.load(std::memory_order_relaxed);
  s.dev = fs().device();
  s.size = 80;  // FILENT_SIZE: the state's text
  s.atime = s.mtime = s.ctime = created_;
  return s;
}

Result<void> MqueueInode::SetAttr(const VfsContext&, const AttrChange& change) {
  if (change.mode) mode_ = *change.mode & 07777;
  if (change.uid) uid_ = *change.uid;
  if (change.gid) gid_ = *change.gid;
  return {};
}

Result<RefPtr<File>> MqueueInode::Open(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  return RefPtr<File>(MakeRef<MqueueFile>(path, flags, RefPtr<MqueueInode>(this)));
}

// --- file ---

MqueueFile::MqueueFile(VfsPath path, OpenFlags flags, RefPtr<MqueueInode> inode)
    : File(std::move(path), flags), mq_inode_(std::move(inode)) {}

Result<size_t> MqueueFile::PRead(const VfsContext&, IoDest& dst, int64_t offset) {
  MessageQueue::NotifyInfo n = queue().notify_info();
  std::string text = fmt::format("QSIZE:{:<10} NOTIFY:{:<5} SIGNO:{:<5} NOTIFY_PID:{:<6}\n", queue().bytes(),
                                 n.owner_pid != 0 && n.signo == 0 ? 1 : 0, n.signo, n.owner_pid);
  if (static_cast<uint64_t>(offset) >= text.size() || dst.remaining() == 0) return size_t{0};
  return dst.Put(text.data() + offset, std::min(text.size() - offset, dst.remaining()));
}

Result<int64_t> MqueueFile::Seek(const VfsContext&, int64_t offset, int whence) {
  return SeekWithin(offset, whence, 80);
}

Result<void> MqueueFile::Flush(const VfsContext& ctx) {
  queue().Unregister(ctx.pid);
  return {};
}

// --- directory ---

class MqueueDir final : public PseudoDir {
 public:
  explicit MqueueDir(MqueueFs& fs) : PseudoDir(fs, 1, 01777), mqueues_(fs) {}
  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    return RefPtr<Inode>(TRY(mqueues_.Find(name)));
  }
  Result<RefPtr<Inode>> Create(const VfsContext& ctx, std::string_view name, uint32_t mode) override {
    return RefPtr<Inode>(TRY(mqueues_.Add(name, MakeRef<MessageQueue>(MessageQueue::Limits{}, nullptr), mode,
                                          ctx.cred.fsuid, ctx.cred.fsgid)));
  }
  Result<void> Unlink(const VfsContext& ctx, std::string_view name, Inode&) override {
    return mqueues_.Remove(name, ctx.cred);
  }
  Result<void> List(const VfsContext&, int64_t from, std::vector<PseudoEntry>& out) override {
    MutexLock lock(mqueues_.mu_);
    int64_t position = 2;
    for (auto& [name, inode] : mqueues_.queues_) {
      if (position >= from) out.push_back({name, inode->ino(), DT_REG, position});
      ++position;
    }
    return {};
  }

 private:
  MqueueFs& mqueues_;
};

MqueueFs::MqueueFs() : PseudoFs("mqueue", kMqueueMagic, false) {}

RefPtr<MqueueFs> MqueueFs::Create() {
  RefPtr<MqueueFs> fs = AdoptRef(new MqueueFs());
  fs->SetRoot(MakeRef<MqueueDir>(*fs));
  return fs;
}

Result<RefPtr<MqueueInode>> MqueueFs::Find(std::string_view name) {
  MutexLock lock(mu_);
  auto at = queues_.find(name);
  if (at == queues_.end()) return kENOENT;
  return at->second;
}

Result<RefPtr<MqueueInode>> MqueueFs::Add(std::string_view name, RefPtr<MessageQueue> queue, uint32_t mode, Kuid uid,
                                          Kgid gid) {
  RefPtr<MqueueInode> inode = MakeRef<MqueueInode>(*this, std::move(queue), mode, uid, gid);
  MutexLock lock(mu_);
  if (queues_.size() >= kMaxQueues) return kENOSPC;
  if (!queues_.try_emplace(std::string(name), inode).second) return kEEXIST;
  return inode;
}

Result<void> MqueueFs::Remove(std::string_view name, const Credentials& cred) {
  RefPtr<MqueueInode> gone;
  RefPtr<MqueueInode> found = TRY(Find(name));
  Kstat s = TRY(found->GetAttr());
  if (s.uid != cred.fsuid && !cred.HasCapability(CAP_FOWNER)) return kEACCES;
  MutexLock lock(mu_);
  auto at = queues_.find(name);
  if (at == queues_.end()) return kENOENT;
  gone = std::move(at->second);
  queues_.erase(at);
  return {};
}

}  // namespace moat
