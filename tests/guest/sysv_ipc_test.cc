// System V IPC: semaphores with undo, shared memory, message queues; POSIX message queue calls.
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"

namespace moat::guest {
namespace {

class Semaphore : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(id_ = semget(IPC_PRIVATE, 3, 0600)); }
  ~Semaphore() override {
    if (id_ >= 0) semctl(id_, 0, IPC_RMID);
  }
  int Op(unsigned short number, short change, short flags = IPC_NOWAIT) {
    sembuf op = {number, change, flags};
    return semop(id_, &op, 1);
  }
  int Value(int number = 0) { return semctl(id_, number, GETVAL); }
  int id_ = -1;
};
TEST_F(Semaphore, StartsAtZeroAndCounts) {
  EXPECT_EQ(Value(), 0);
  ASSERT_OK(Op(0, 3));
  ASSERT_OK(Op(0, -2));
  EXPECT_EQ(Value(), 1);
}
TEST_F(Semaphore, NowaitGivesEagain) {
  EXPECT_FAIL(Op(0, -1), EAGAIN);
  ASSERT_OK(Op(0, 1));
  EXPECT_FAIL(Op(0, 0), EAGAIN);
}
TEST_F(Semaphore, OperationsAreAllOrNothing) {
  sembuf ops[] = {{0, 1, IPC_NOWAIT}, {1, -1, IPC_NOWAIT}};
  EXPECT_FAIL(semop(id_, ops, 2), EAGAIN);
  EXPECT_EQ(Value(0), 0);
}
TEST_F(Semaphore, BlockedWaiterWakes) {
  std::thread poster([&] {
    usleep(10'000);
    Op(0, 1);
  });
  EXPECT_OK(Op(0, -1, 0));
  poster.join();
}
TEST_F(Semaphore, WaitForZero) {
  ASSERT_OK(Op(0, 1));
  std::thread taker([&] {
    usleep(10'000);
    Op(0, -1);
  });
  EXPECT_OK(Op(0, 0, 0));
  taker.join();
}
TEST_F(Semaphore, UndoAtExit) {
  ASSERT_OK(Op(0, 2));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(Op(0, -1, SEM_UNDO)); }));
  EXPECT_EQ(Value(), 2);
}
TEST_F(Semaphore, RemovalWakesWaiters) {
  std::thread remover([&] {
    usleep(10'000);
    semctl(id_, 0, IPC_RMID);
  });
  EXPECT_FAIL(Op(0, -1, 0), EIDRM);
  remover.join();
  id_ = -1;
}
TEST_F(Semaphore, TimedWait) {
  sembuf op = {0, -1, 0};
  const timespec t = {0, 10'000'000};
  EXPECT_FAIL(semtimedop(id_, &op, 1, &t), EAGAIN);
}
TEST_F(Semaphore, SetvalSetallGetall) {
  ASSERT_OK(semctl(id_, 1, SETVAL, 7));
  EXPECT_EQ(Value(1), 7);
  unsigned short all[3] = {4, 5, 6};
  ASSERT_OK(semctl(id_, 0, SETALL, all));
  unsigned short got[3] = {};
  ASSERT_OK(semctl(id_, 0, GETALL, got));
  EXPECT_EQ(got[2], 6);
  EXPECT_FAIL(semctl(id_, 0, SETVAL, 40'000), ERANGE);
}
TEST_F(Semaphore, PidAndWaiters) {
  ASSERT_OK(Op(0, 1));
  EXPECT_EQ(semctl(id_, 0, GETPID), getpid());
  EXPECT_EQ(semctl(id_, 0, GETNCNT), 0);
  EXPECT_EQ(semctl(id_, 0, GETZCNT), 0);
}
TEST_F(Semaphore, StatAndPermission) {
  semid_ds ds = {};
  ASSERT_OK(semctl(id_, 0, IPC_STAT, &ds));
  EXPECT_EQ(ds.sem_nsems, 3u);
  EXPECT_EQ(ds.sem_perm.mode & 0777, 0600);
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(Op(0, 1), EACCES);
    EXPECT_FAIL(semctl(id_, 0, IPC_RMID), EPERM);
  }));
}
TEST_F(Semaphore, Errors) {
  EXPECT_FAIL(Op(9, 1), EFBIG);
  EXPECT_FAIL(semop(id_, nullptr, 0), EINVAL);
  sembuf op = {0, 1, 0};
  EXPECT_FAIL(semop(999'999'999, &op, 1), EINVAL);
  EXPECT_FAIL(semget(IPC_PRIVATE, 0, 0600), EINVAL);
  EXPECT_FAIL(semget(0x7001, 1, 0600), ENOENT);
  EXPECT_FAIL(Op(0, 32'767) == -1 ? -1 : Op(0, 1), ERANGE);
}
TEST_F(Semaphore, KeyExclusive) {
  const int a = semget(0x7002, 1, IPC_CREAT | 0600);
  ASSERT_OK(a);
  EXPECT_EQ(semget(0x7002, 1, 0600), a);
  EXPECT_FAIL(semget(0x7002, 1, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
  EXPECT_FAIL(semget(0x7002, 2, 0600), EINVAL);
  EXPECT_OK(semctl(a, 0, IPC_RMID));
}

TEST_F(Semaphore, ManyKeysAndTheirRemoval) {
  constexpr int kSets = 200, kFirst = 0x7100;
  int ids[kSets];
  for (int i = 0; i < kSets; ++i) ASSERT_OK(ids[i] = semget(kFirst + i, 1, IPC_CREAT | IPC_EXCL | 0600));
  for (int i = 0; i < kSets; ++i) EXPECT_EQ(semget(kFirst + i, 0, 0), ids[i]);
  for (int i = 0; i < kSets; i += 2) EXPECT_OK(semctl(ids[i], 0, IPC_RMID));
  for (int i = 0; i < kSets; i += 2) {
    EXPECT_FAIL(semget(kFirst + i, 0, 0), ENOENT);
    ASSERT_OK(ids[i] = semget(kFirst + i, 1, IPC_CREAT | IPC_EXCL | 0600));
  }
  for (int i = 0; i < kSets; ++i) {
    EXPECT_EQ(semget(kFirst + i, 0, 0), ids[i]);
    EXPECT_OK(semctl(ids[i], 0, IPC_RMID));
  }
}

class SharedMemory : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(id_ = shmget(IPC_PRIVATE, 2 * kPage, 0600)); }
  ~SharedMemory() override {
    if (id_ >= 0) shmctl(id_, IPC_RMID, nullptr);
  }
  char* Attach(const void* at = nullptr, int flags = 0) { return static_cast<char*>(shmat(id_, at, flags)); }
  int id_ = -1;
};
TEST_F(SharedMemory, AttachedTwiceSeesTheSame) {
  char *a = Attach(), *b = Attach();
  ASSERT_NE(a, reinterpret_cast<char*>(-1));
  a[10] = 'x';
  EXPECT_EQ(b[10], 'x');
  EXPECT_OK(shmdt(a));
  EXPECT_OK(shmdt(b));
}
TEST_F(SharedMemory, SharedWithChildren) {
  char* a = Attach();
  EXPECT_TRUE(PassesInChild([&] { a[0] = 'c'; }));
  EXPECT_EQ(a[0], 'c');
  shmdt(a);
}
TEST_F(SharedMemory, NoMoreSegmentsThanTheLimit) {
  EXPECT_TRUE(PassesInChild([] {
    if (unshare(CLONE_NEWIPC) != 0) return;  // the host's own are not used up
    shminfo limits;
    ASSERT_OK(shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)));
    ASSERT_EQ(limits.shmmni, 4096u);
    for (unsigned i = 0; i < limits.shmmni; ++i) ASSERT_OK(shmget(static_cast<key_t>(0x100 + i), 1, IPC_CREAT | 0600));
    EXPECT_FAIL(shmget(IPC_PRIVATE, 1, 0600), ENOSPC);
    EXPECT_FAIL(shmget(0x99, 1, IPC_CREAT | 0600), ENOSPC);
    EXPECT_OK(shmget(0x100, 1, IPC_CREAT | 0600));
  }));
}
TEST_F(SharedMemory, SurvivesDetach) {
  char* a = Attach();
  a[0] = 'k';
  ASSERT_OK(shmdt(a));
  a = Attach();
  EXPECT_EQ(a[0], 'k');
  shmdt(a);
}
TEST_F(SharedMemory, ReadOnlyAttachFaults) {
  char* a = Attach(nullptr, SHM_RDONLY);
  const int status = StatusOf([&] { *const_cast<volatile char*>(a) = 1; });
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
  shmdt(a);
}
TEST_F(SharedMemory, StatCountsAttaches) {
  char* a = Attach();
  shmid_ds ds;
  ASSERT_OK(shmctl(id_, IPC_STAT, &ds));
  EXPECT_EQ(ds.shm_nattch, 1u);
  EXPECT_EQ(ds.shm_segsz, 2 * kPage);
  EXPECT_EQ(ds.shm_cpid, getpid());
  shmdt(a);
}
TEST_F(SharedMemory, RemovalWaitsForTheLastDetach) {
  char* a = Attach();
  ASSERT_OK(shmctl(id_, IPC_RMID, nullptr));
  a[0] = 1;
  ASSERT_OK(shmdt(a));
  EXPECT_EQ(Attach(), reinterpret_cast<char*>(-1));
  EXPECT_EQ(errno, EINVAL);
  id_ = -1;
}
TEST_F(SharedMemory, FixedAddressAndRounding) {
  Mapping hole(4 * kPage);
  char* at = hole.data();
  EXPECT_EQ(Attach(at + 5), reinterpret_cast<char*>(-1));
  EXPECT_EQ(Attach(at, SHM_REMAP), at);
  EXPECT_OK(shmdt(at));
}
TEST_F(SharedMemory, Errors) {
  EXPECT_FAIL(shmget(IPC_PRIVATE, 0, 0600), EINVAL);
  EXPECT_FAIL(shmget(0x7003, kPage, 0600), ENOENT);
  EXPECT_FAIL(shmdt(BadPointer()), EINVAL);
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_EQ(Attach(), reinterpret_cast<char*>(-1));
    EXPECT_EQ(errno, EACCES);
  }));
}

struct Message {
  long type;
  char text[64];
};
class MessageQueue : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(id_ = msgget(IPC_PRIVATE, 0600)); }
  ~MessageQueue() override {
    if (id_ >= 0) msgctl(id_, IPC_RMID, nullptr);
  }
  int Send(long type, const char* text, int flags = IPC_NOWAIT) {
    Message m = {type, {}};
    strcpy(m.text, text);
    return msgsnd(id_, &m, strlen(text), flags);
  }
  std::string Take(long type, int flags = IPC_NOWAIT, size_t size = 64) {
    Message m = {};
    const ssize_t n = msgrcv(id_, &m, size, type, flags);
    return n < 0 ? std::string("!") + ErrnoName(errno) : std::string(m.text, n);
  }
  int id_ = -1;
};
TEST_F(MessageQueue, FirstInFirstOut) {
  ASSERT_OK(Send(1, "one"));
  ASSERT_OK(Send(2, "two"));
  EXPECT_EQ(Take(0), "one");
  EXPECT_EQ(Take(0), "two");
  EXPECT_EQ(Take(0), "!ENOMSG");
}
TEST_F(MessageQueue, ByType) {
  ASSERT_OK(Send(5, "five"));
  ASSERT_OK(Send(3, "three"));
  ASSERT_OK(Send(4, "four"));
  EXPECT_EQ(Take(4), "four");
  EXPECT_EQ(Take(-5), "three");  // the lowest type up to 5
  EXPECT_EQ(Take(5, IPC_NOWAIT | MSG_EXCEPT), "!ENOMSG");
  EXPECT_EQ(Take(9, IPC_NOWAIT | MSG_EXCEPT), "five");
}
TEST_F(MessageQueue, TooBigForTheBuffer) {
  ASSERT_OK(Send(1, "longer"));
  EXPECT_EQ(Take(0, IPC_NOWAIT, 3), "!E2BIG");
  EXPECT_EQ(Take(0, IPC_NOWAIT | MSG_NOERROR, 3), "lon");
}
TEST_F(MessageQueue, BlockedReceiverWakes) {
  std::thread sender([&] {
    usleep(10'000);
    Send(1, "late");
  });
  EXPECT_EQ(Take(0, 0), "late");
  sender.join();
}
TEST_F(MessageQueue, FullQueue) {
  int sent = 0;
  while (sent < 10'000 && Send(1, "0123456789012345678901234567890123456789") == 0) ++sent;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(sent, 16384 / 40);
}
TEST_F(MessageQueue, RemovalWakes) {
  const pid_t waiting = gettid();
  std::thread remover([&] {
    EXPECT_TRUE(Sleeps(getpid(), waiting));
    msgctl(id_, IPC_RMID, nullptr);
  });
  EXPECT_EQ(Take(0, 0), "!EIDRM");
  remover.join();
  id_ = -1;
}
TEST_F(MessageQueue, StatCounts) {
  ASSERT_OK(Send(1, "abc"));
  msqid_ds ds;
  ASSERT_OK(msgctl(id_, IPC_STAT, &ds));
  EXPECT_EQ(ds.msg_qnum, 1u);
  EXPECT_EQ(ds.__msg_cbytes, 3u);
  EXPECT_EQ(ds.msg_lspid, getpid());
}
TEST_F(MessageQueue, Errors) {
  EXPECT_FAIL(Send(0, "x"), EINVAL);
  EXPECT_FAIL(msgsnd(id_, BadPointer(), 1, 0), EFAULT);
  EXPECT_FAIL(msgget(0x7004, 0600), ENOENT);
  Message m = {1, {}};
  EXPECT_FAIL(msgsnd(id_, &m, 100'000, 0), EINVAL);
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(Send(1, "x"), EACCES); }));
}

class PosixQueue : public testing::Test {
 protected:
  void SetUp() override {
    name_ = "/guest-" + std::to_string(getpid());
    mq_attr attr = {};
    attr.mq_maxmsg = 4;
    attr.mq_msgsize = 16;
    queue_ = mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attr);
    ASSERT_OK(queue_);
  }
  ~PosixQueue() override {
    mq_close(queue_);
    mq_unlink(name_.c_str());
  }
  std::string name_;
  mqd_t queue_ = -1;
};
TEST_F(PosixQueue, PriorityOrder) {
  ASSERT_OK(mq_send(queue_, "low", 3, 1));
  ASSERT_OK(mq_send(queue_, "high", 4, 9));
  char b[16];
  unsigned priority = 0;
  EXPECT_EQ(mq_receive(queue_, b, sizeof b, &priority), 4);
  EXPECT_EQ(priority, 9u);
  EXPECT_EQ(mq_receive(queue_, b, sizeof b, &priority), 3);
}
TEST_F(PosixQueue, FullAndEmpty) {
  char b[16];
  EXPECT_FAIL(mq_receive(queue_, b, sizeof b, nullptr), EAGAIN);
  for (int i = 0; i < 4; ++i) ASSERT_OK(mq_send(queue_, "x", 1, 0));
  EXPECT_FAIL(mq_send(queue_, "x", 1, 0), EAGAIN);
  mq_attr attr;
  ASSERT_OK(mq_getattr(queue_, &attr));
  EXPECT_EQ(attr.mq_curmsgs, 4);
}
TEST_F(PosixQueue, DeadlinesPass) {
  char b[64];
  const timespec past = {1, 0};
  mq_attr blocking = {};
  ASSERT_OK(mq_setattr(queue_, &blocking, nullptr));
  EXPECT_FAIL(mq_timedreceive(queue_, b, sizeof b, nullptr, &past), ETIMEDOUT);
  mq_attr attr = {};
  ASSERT_OK(syscall(SYS_mq_getsetattr, queue_, nullptr, &attr));
  for (long i = 0; i < attr.mq_maxmsg; ++i) ASSERT_OK(mq_timedsend(queue_, "m", 1, 0, &past));
  EXPECT_FAIL(mq_timedsend(queue_, "m", 1, 0, &past), ETIMEDOUT);
}
TEST_F(PosixQueue, NotifiesOneProcessOnce) {
  sigevent event = {};
  event.sigev_notify = SIGEV_NONE;
  ASSERT_OK(mq_notify(queue_, &event));
  EXPECT_FAIL(mq_notify(queue_, &event), EBUSY);
  ASSERT_OK(mq_notify(queue_, nullptr));
  EXPECT_OK(mq_notify(queue_, &event));
}
TEST_F(PosixQueue, Errors) {
  char b[16];
  EXPECT_FAIL(mq_send(queue_, "01234567890123456789", 20, 0), EMSGSIZE);
  EXPECT_FAIL(mq_receive(queue_, b, 8, nullptr), EMSGSIZE);
  EXPECT_FAIL(mq_open("/none-such", O_RDWR), ENOENT);
  EXPECT_FAIL(mq_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, nullptr), EEXIST);
  EXPECT_FAIL(mq_unlink("/none-such"), ENOENT);
}

}  // namespace
}  // namespace moat::guest
