// The file system of POSIX message queues: one of each ipc namespace, mounted or not. Reading a queue's file shows its
// state; creating and removing names works as mq_open(3) and mq_unlink(3) do. Source: mq_overview(7).
#ifndef MOAT_FS_MQUEUE_MQUEUE_FS_H_
#define MOAT_FS_MQUEUE_MQUEUE_FS_H_

#include <map>

#include "fs/mqueue/message_queue.h"
#include "fs/pseudofs/pseudo_fs.h"

namespace moat {

class MqueueInode final : public Inode {
 public:
  MqueueInode(FileSystem& fs, RefPtr<MessageQueue> queue, uint32_t mode, Kuid uid, Kgid gid);
  MessageQueue& queue() { return *queue_; }
  Result<Kstat> GetAttr() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;

 private:
  const RefPtr<MessageQueue> queue_;
  const Nanos created_;
  std::atomic<uint32_t> mode_;
  std::atomic<Kuid> uid_;
  std::atomic<Kgid> gid_;
};

// An open queue.
class MqueueFile final : public File {
 public:
  MqueueFile(VfsPath path, OpenFlags flags, RefPtr<MqueueInode> inode);
  MessageQueue& queue() { return mq_inode_->queue(); }
  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Flush(const VfsContext& ctx) override;  // a close ends the process's registration
  EventMask Poll(EventMask interest) override { return queue().Poll(interest); }
  WaitQueue& wait_queue() override { return queue().wait_queue(); }
  bool SupportsEpoll() const override { return true; }

 private:
  const RefPtr<MqueueInode> mq_inode_;
};

class MqueueFs final : public PseudoFs {
 public:
  static RefPtr<MqueueFs> Create();
  static constexpr size_t kMaxQueues = 256;

  // kENOENT.
  Result<RefPtr<MqueueInode>> Find(std::string_view name);
  // kEEXIST, kENOSPC.
  Result<RefPtr<MqueueInode>> Add(std::string_view name, RefPtr<MessageQueue> queue, uint32_t mode, Kuid uid, Kgid gid);
  // Only the owner, or who has CAP_FOWNER: the root directory is sticky. kENOENT, kEACCES.
  Result<void> Remove(std::string_view name, const Credentials& cred);

 private:
  friend class MqueueDir;
  MqueueFs();
  Mutex mu_{LockRank::kInode};
  std::map<std::string, RefPtr<MqueueInode>, std::less<>> queues_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_MQUEUE_MQUEUE_FS_H_
