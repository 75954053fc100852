// POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2).
#include <fcntl.h>
#include <mqueue.h>
#include <sys/epoll.h>

#include "fs/vfs/vfs.h"
#include "platform/base/log.h"
#include "sentry/ipc/mqueue_namespace.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

static_assert(sizeof(mq_attr) == 64);
constexpr int64_t kDefaultLimit = 10, kDefaultSize = 8192, kHardLimit = 65536, kHardSize = 16 << 20;

// The queue's memory counts against RLIMIT_MSGQUEUE of its creator.
class QueueCharge final : public RefCounted {
 public:
  QueueCharge(RefPtr<UserAccount> account, int64_t bytes) : account_(std::move(account)), bytes_(bytes) {}
  ~QueueCharge() override { account_->mqueue_bytes.fetch_sub(bytes_, std::memory_order_relaxed); }

 private:
  const RefPtr<UserAccount> account_;
  const int64_t bytes_;
};

Result<RefPtr<MessageQueue>> MakeQueue(Task& t, const MessageQueue::Limits& limits) {
  const bool privileged = t.cred().HasCapability(CAP_SYS_RESOURCE);
  if (limits.max_messages <= 0 || limits.message_size <= 0) return kEINVAL;
  if (limits.max_messages > (privileged ? kHardLimit : kDefaultLimit)) return kEINVAL;
  if (limits.message_size > (privileged ? kHardSize : kDefaultSize)) return kEINVAL;
  // As the manual page of getrlimit(2) counts it.
  constexpr int64_t kMessageOverhead = 48 + 8;
  const int64_t bytes = limits.max_messages * kMessageOverhead + limits.max_messages * limits.message_size;
  RefPtr<UserAccount> account = t.account();
  if (!account) return MakeRef<MessageQueue>(limits, nullptr);
  const uint64_t limit = t.thread_group().rlimits().Soft(RLIMIT_MSGQUEUE);
  const int64_t now = account->mqueue_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  RefPtr<QueueCharge> charge = MakeRef<QueueCharge>(std::move(account), bytes);
  if (static_cast<uint64_t>(now) > limit) return kEMFILE;
  return MakeRef<MessageQueue>(limits, std::move(charge));
}

Result<std::string> ReadName(Task& t, UserString name) {
  std::string s = TRY(name.ReadPath(t.memory()));
  if (s.empty()) return kEINVAL;
  if (s.size() > 255) return kENAMETOOLONG;
  if (s == "." || s == ".." || s.find('/') != std::string::npos) return kEACCES;
  return s;
}

Result<MqueueFile*> GetQueue(Task& t, FdNum fd, RefPtr<File>* keep) {
  *keep = TRY(t.GetFileNotPath(ToInt(fd)));
  auto* q = dynamic_cast<MqueueFile*>(keep->get());
  if (q == nullptr) return kEBADF;
  return q;
}

// An absolute time of CLOCK_REALTIME; null: none.
Result<Deadline> ReadDeadline(Task& t, UserIn<abi::Timespec> timeout) {
  if (!timeout) return kNoDeadline;
  return ToDeadline(CLOCK_REALTIME, TRY(ToNanos(TRY(timeout.Read(t.memory())))));
}

template <typename Op>
auto Wait(Task& t, MqueueFile& f, EventMask events, Deadline deadline, Op op) -> decltype(op()) {
  if (f.nonblocking()) return op();
  return BlockingOp(t, f.wait_queue(), events, deadline, op);
}

}  // namespace

Result<int64_t> SysMqOpen(Task& t, UserString name_address, int flags, uint32_t mode, GuestAddr attr_address) {
  mq_attr attr{};
  if (attr_address != 0) attr = TRY(UserIn<mq_attr>(attr_address).Read(t.memory()));
  std::string name = TRY(ReadName(t, name_address));
  if ((flags & O_ACCMODE) == O_ACCMODE) return kEINVAL;
  Task::FsCall fs(t);
  RefPtr<MqueueFs> queues = MqueuesOf(*t.ipc_ns());
  Result<RefPtr<MqueueInode>> found = queues->Find(name);
  bool created = false;
  if (!found.ok()) {
    if (!(flags & O_CREAT)) return kENOENT;
    MessageQueue::Limits limits;
    if (attr_address != 0) limits = {attr.mq_maxmsg, attr.mq_msgsize};
    RefPtr<MessageQueue> queue = TRY(MakeQueue(t, limits));
    found = queues->Add(name, std::move(queue), mode & ~fs.ctx().umask, t.cred().fsuid, t.cred().fsgid);
    created = found.ok();
    if (!created && found.error() == kEEXIST && !(flags & O_EXCL)) found = queues->Find(name);
  } else if ((flags & O_CREAT) && (flags & O_EXCL)) {
    return kEEXIST;
  }
  RefPtr<MqueueInode> inode = TRY(found);
  VfsPath path = vfs::AnonymousPath(inode, "/" + name);
  const OpenFlags open{(flags & (O_ACCMODE | O_NONBLOCK))};
  if (!created) {
    TRY(vfs::Access(fs, path, (open.readable() ? 4 : 0) | (open.writable() ? 2 : 0)));
  }
  return TRY(t.InstallFd(TRY(inode->Open(fs, path, open)), (flags & O_CLOEXEC) != 0));
}

Result<int64_t> SysMqUnlink(Task& t, UserString name) {
  TRY(MqueuesOf(*t.ipc_ns())->Remove(TRY(ReadName(t, name)), t.cred()));
  return 0;
}

Result<int64_t> SysMqTimedsend(Task& t, FdNum fd, GuestAddr text, size_t size, uint32_t priority,
                               UserIn<abi::Timespec> timeout) {
  Deadline deadline = TRY(ReadDeadline(t, timeout));
  if (priority >= MessageQueue::kMaxPriority) return kEINVAL;
  RefPtr<File> keep;
  MqueueFile* q = TRY(GetQueue(t, fd, &keep));
  if (!q->writable()) return kEBADF;
  if (size > static_cast<size_t>(q->queue().limits().message_size)) return kEMSGSIZE;
  std::string message(size, '\0');
  if (size != 0 && t.memory().CopyIn(message.data(), text, size) != size) return kEFAULT;
  TRY(Wait(t, *q, EPOLLOUT, deadline, [&] { return q->queue().Send(message, priority, t.RootTgid(), t.cred().uid); }));
  return 0;
}

Result<int64_t> SysMqTimedreceive(Task& t, FdNum fd, GuestAddr text, size_t size, UserOut<uint32_t> priority,
                                  UserIn<abi::Timespec> timeout) {
  Deadline deadline = TRY(ReadDeadline(t, timeout));
  RefPtr<File> keep;
  MqueueFile* q = TRY(GetQueue(t, fd, &keep));
  if (!q->readable()) return kEBADF;
  if (!q->nonblocking()) q->queue().AddReceiver(1);
  Result<MessageQueue::Message> m = Wait(t, *q, EPOLLIN, deadline, [&] { return q->queue().Receive(size); });
  if (!q->nonblocking()) q->queue().AddReceiver(-1);
  if (!m.ok()) return m.error();
  const size_t n = m->text.size();
  if (n != 0 && t.memory().CopyOut(text, m->text.data(), n) != n) return kEFAULT;
  if (priority) TRY(priority.Write(t.memory(), m->priority));
  return static_cast<int64_t>(n);
}

Result<int64_t> SysMqNotify(Task& t, FdNum fd, GuestAddr event_address) {
  RefPtr<File> keep;
  if (event_address == 0) {
    MqueueFile* q = TRY(GetQueue(t, fd, &keep));
    q->queue().Unregister(t.RootTgid());
    return 0;
  }
  sigevent event = TRY(UserIn<sigevent>(event_address).Read(t.memory()));
  if (event.sigev_notify == SIGEV_THREAD) {
    MOAT_LOG_ONCE("mq_notify SIGEV_THREAD: needs netlink, answers EINVAL");
    return kEINVAL;
  }
  if (event.sigev_notify != SIGEV_NONE && event.sigev_notify != SIGEV_SIGNAL) return kEINVAL;
  if (event.sigev_notify == SIGEV_SIGNAL && !ValidSignal(event.sigev_signo)) return kEINVAL;
  MqueueFile* q = TRY(GetQueue(t, fd, &keep));
  const int signo = event.sigev_notify == SIGEV_SIGNAL ? event.sigev_signo : 0;
  RefPtr<ThreadGroup> group(&t.thread_group());
  TRY(q->queue().Register(t.RootTgid(), signo, [group, signo, value = event.sigev_value](int32_t pid, Kuid uid) {
    if (signo == 0) return;
    SigInfo info = UserSigInfo(signo, SI_MESGQ, pid, uid);
    RefPtr<Pid> sender = group->kernel().FindPid(pid, *group->kernel().root_pid_ns());
    info.si_pid = sender ? sender->NrIn(group->pid_ns()) : 0;
    info.si_value = value;
    (void)group->SendSignal(info);
  }));
  return 0;
}

Result<int64_t> SysMqGetsetattr(Task& t, FdNum fd, GuestAddr new_address, GuestAddr old_address) {
  mq_attr wanted{};
  if (new_address != 0) {
    wanted = TRY(UserIn<mq_attr>(new_address).Read(t.memory()));
    if (wanted.mq_flags & ~O_NONBLOCK) return kEINVAL;
  }
  RefPtr<File> keep;
  MqueueFile* q = TRY(GetQueue(t, fd, &keep));
  mq_attr old{};
  old.mq_flags = q->flags() & O_NONBLOCK;
  old.mq_maxmsg = q->queue().limits().max_messages;
  old.mq_msgsize = q->queue().limits().message_size;
  old.mq_curmsgs = q->queue().count();
  if (new_address != 0) {
    TRY(q->SetStatusFlags((q->flags() & ~O_NONBLOCK) | static_cast<int>(wanted.mq_flags & O_NONBLOCK)));
  }
  if (old_address != 0) TRY(UserOut<mq_attr>(old_address).Write(t.memory(), old));
  return 0;
}

}  // namespace moat
