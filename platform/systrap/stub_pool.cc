#include "platform/systrap/stub_pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "platform/base/log.h"
#include "platform/fiber/fiber.h"
#include "platform/stub/liveness.h"
#include "platform/systrap/zygote.h"

namespace moat::systrap_platform {
namespace {

constexpr Nanos kLookPeriod = 500'000'000;
constexpr size_t kPagesSize = (size_t{SYSTRAP_MAX_AREAS}) * 4096;
constexpr size_t kAreasSize = size_t{kMaxAreas} * kAreaSize;

// For words that another process wakes: no private futex.
void WaitShared(std::atomic<uint32_t>& word, uint32_t value) {
  const timespec period = {1, 0};  // to look whether the other side still lives
  syscall(SYS_futex, &word, FUTEX_WAIT, value, &period, nullptr, 0);
}

Result<void*> MapFile(int fd, size_t size) {
  if (ftruncate(fd, static_cast<off_t>(size)) != 0) return HostErrno();
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (p == MAP_FAILED) return HostErrno();
  return p;
}

}  // namespace

void WakeShared(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

Result<std::unique_ptr<StubPool>> StubPool::Create(const sock_fprog* filter) {
  std::unique_ptr<StubPool> pool(new StubPool);
  pool->pages_fd_ = ScopedFd(memfd_create("moat-commands", MFD_CLOEXEC));
  pool->areas_fd_ = ScopedFd(memfd_create("moat-areas", MFD_CLOEXEC));
  if (!pool->pages_fd_.valid() || !pool->areas_fd_.valid()) return HostErrno();
  pool->pages_ = static_cast<CommandPage*>(TRY(MapFile(pool->pages_fd_.get(), kPagesSize)));
  pool->areas_ = static_cast<std::byte*>(TRY(MapFile(pool->areas_fd_.get(), kAreasSize)));
  Mailbox& mailbox = pool->mailbox();
  mailbox.commands_fd = pool->pages_fd_.get();
  mailbox.areas_fd = pool->areas_fd_.get();
  pool->zygote_pid_ = TRY(StartZygote(filter, pool->pages_fd_.get()));
  mailbox.zygote = static_cast<uint64_t>(pool->zygote_pid_);
  StubPool* raw = pool.get();
  pool->thread_ = TRY(HostThread::Start("stub-pool", [raw] { raw->Run(); }));
  return pool;
}

Result<void> StubPool::AwaitFirst() {
  ReadyStub first = TRY(Take());
  MutexLock lock(mu_);
  in_use_.erase(first.pid);
  ready_.push_back(std::move(first));
  return {};
}

StubPool::~StubPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  parker_.Unpark();
  if (thread_.joinable()) thread_.Join();
  // While the zygote lives, its stubs need nobody to reap them.
  {
    MutexLock lock(mu_);
    for (const ReadyStub& s : ready_) syscall(SYS_tgkill, s.pid, s.pid, SIGKILL);
    ready_.clear();
  }
  if (zygote_pid_ != 0) {
    kill(zygote_pid_, SIGKILL);  // its stubs follow it
    waitpid(zygote_pid_, nullptr, __WALL);
  }
  if (pages_ != nullptr) munmap(pages_, kPagesSize);
  if (areas_ != nullptr) munmap(areas_, kAreasSize);
}

void StubPool::PrepareArea(uint32_t index) const {
  Area& a = area(index);
  a.fs_base = a.gs_base = a.frame = 0;
  a.listener.store(0, std::memory_order_relaxed);
  a.agent.store(0, std::memory_order_relaxed);
  a.magic = AREA_MAGIC_VALUE;
  a.answers.store(0, std::memory_order_relaxed);
  a.listening.store(0, std::memory_order_relaxed);
  a.state.store(MAILBOX_EMPTY, std::memory_order_relaxed);
  memset(&a.signal_stack, 0, sizeof a.signal_stack);
  a.signal_stack.ss_sp = reinterpret_cast<void*>(AreaAddress(index) + kSignalStack);
  a.signal_stack.ss_size = kAreaSize - kSignalStack;
}

Result<Listener> StubPool::AwaitThread(std::atomic<uint32_t>& word, pid_t stub) const {
  BeforeHostSleep();
  uint32_t told;
  while ((told = word.load(std::memory_order_acquire)) == 0) {
    WaitShared(word, 0);
    if (word.load(std::memory_order_relaxed) == 0 && stub::IsDead(stub)) return kESRCH;
  }
  const auto answer = static_cast<int32_t>(told);
  if (answer < 0) return kEAGAIN;
  Result<Listener> listener = Listener::Adopt(answer - 1);
  if (!listener.ok()) return kESRCH;
  TRY(listener->Receive());
  // A listener that nobody has adopted yet is of a thread that is just being made, in whichever stub: its first call
  // comes at once. One of another stub asks again, and finds its own carrier then.
  if (syscall(SYS_tgkill, stub, listener->tid(), 0) == 0) return listener;
  MOAT_LOG(kWarning, "stub {} named a listener that is not its own", stub);
  (void)listener->Answer(SYSTRAP_AGAIN);
  listener->Forgo();
  return kESRCH;
}

Result<ReadyStub> StubPool::Order(uint32_t page_index, uint32_t area_index) {
  PrepareArea(area_index);
  page(page_index).thread_order.store(0, std::memory_order_relaxed);
  Mailbox& m = mailbox();
  m.page = uint64_t{page_index + 1} * 4096;
  m.area = uint64_t{area_index} * kAreaSize;
  const uint32_t order = m.order.fetch_add(1, std::memory_order_release) + 1;
  WakeShared(m.order);
  for (uint32_t done; (done = m.done.load(std::memory_order_acquire)) != order;) {
    WaitShared(m.done, done);
    if (m.done.load(std::memory_order_acquire) != order && stub::IsDead(zygote_pid_)) return kESRCH;
  }
  if (m.result <= 0) return kEAGAIN;
  ReadyStub made;
  made.pid = static_cast<pid_t>(m.result);
  made.page = page_index;
  made.area = area_index;
  // No guest code has run in there yet: these are the stub's own words.
  Area& a = area(area_index);
  Result<void> ready = [&]() -> Result<void> {
    made.agent = TRY(AwaitThread(a.agent, made.pid));
    made.thread = TRY(AwaitThread(a.listener, made.pid));
    return {};
  }();
  if (!ready.ok()) {
    syscall(SYS_tgkill, made.pid, made.pid, SIGKILL);
    return ready.error();
  }
  return made;
}

Result<ReadyStub> StubPool::Make() {
  uint32_t page_index;
  {
    MutexLock lock(mu_);
    if (!free_pages_.empty()) {
      page_index = free_pages_.back();
      free_pages_.pop_back();
    } else if (next_page_ < kMaxStubs) {
      page_index = next_page_++;
    } else {
      return kEAGAIN;
    }
  }
  Result<uint32_t> area_index = TakeArea();
  Result<ReadyStub> made = area_index.ok() ? Order(page_index, *area_index) : Result<ReadyStub>(kEAGAIN);
  if (made.ok()) return made;
  FreePage(page_index);
  if (area_index.ok()) FreeArea(*area_index);
  return made;
}

void StubPool::Run() {
  for (;;) {
    bool full;
    {
      MutexLock lock(mu_);
      if (stopping_) break;
      full = (ready_.size() >= kAhead && waiters_.empty()) || failure_ == kESRCH;
    }
    if (full) {
      if (!parker_.Park(DeadlineAfter(kLookPeriod))) LookForDeadStubs();
      continue;
    }
    Result<ReadyStub> made = Make();
    std::vector<Parker*> wake;
    {
      MutexLock lock(mu_);
      failure_ = made.error();
      if (made.ok()) ready_.push_back(*std::move(made));
      wake.swap(waiters_);
      for (Parker* p : wake) p->Unpark();
    }
    // The host is out of processes: ask again when somebody wants one.
    if (!made.ok()) parker_.Park();
  }
}

void StubPool::LookForDeadStubs() {
  std::vector<pid_t> pids;
  {
    MutexLock lock(mu_);
    pids.assign(in_use_.begin(), in_use_.end());
    for (const ReadyStub& s : ready_) pids.push_back(s.pid);
  }
  std::erase_if(pids, [](pid_t pid) { return !stub::IsDead(pid); });
  for (pid_t pid : pids) {
    if (std::find(suspects_.begin(), suspects_.end(), pid) == suspects_.end()) continue;
    MOAT_LOG(kError, "stub {} was killed from outside: the sandbox ends", pid);
    syscall(SYS_tgkill, zygote_pid_, zygote_pid_, SIGKILL);
  }
  suspects_ = std::move(pids);
}

Result<ReadyStub> StubPool::Take() {
  Parker self;
  for (bool first = true;; first = false) {
    {
      MutexLock lock(mu_);
      if (!ready_.empty()) {
        ReadyStub stub = std::move(ready_.back());
        ready_.pop_back();
        in_use_.insert(stub.pid);
        if (ready_.size() < kAhead / 2) parker_.Unpark();
        return stub;
      }
      if (!first && failure_ != Errno::kOK) return failure_;
      if (failure_ == kESRCH) return failure_;
      waiters_.push_back(&self);
    }
    parker_.Unpark();
    self.Park();
    MutexLock lock(mu_);
    waiters_.erase(std::remove(waiters_.begin(), waiters_.end(), &self), waiters_.end());
  }
}

bool StubPool::GiveBack(ReadyStub& stub) {
  MutexLock lock(mu_);
  if (stopping_ || ready_.size() >= kKeep) return false;
  in_use_.erase(stub.pid);
  ready_.push_back(std::move(stub));
  return true;
}

void StubPool::Kill(pid_t stub) {
  {
    MutexLock lock(mu_);
    in_use_.erase(stub);
  }
  syscall(SYS_tgkill, stub, stub, SIGKILL);
}

void StubPool::KillAndWait(pid_t stub) {
  {
    MutexLock lock(mu_);
    in_use_.erase(stub);
  }
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, stub, 0)));
  syscall(SYS_tgkill, stub, stub, SIGKILL);
  pollfd death = {pidfd.get(), POLLIN, 0};
  if (pidfd.valid()) ppoll(&death, 1, nullptr, nullptr);
}

void StubPool::FreePage(uint32_t page_index) {
  MutexLock lock(mu_);
  free_pages_.push_back(page_index);
}

Result<uint32_t> StubPool::TakeArea() {
  MutexLock lock(mu_);
  if (!free_areas_.empty()) {
    const uint32_t area_index = free_areas_.back();
    free_areas_.pop_back();
    return area_index;
  }
  if (next_area_ == kMaxAreas) return kEAGAIN;
  return next_area_++;
}

void StubPool::FreeArea(uint32_t area_index) {
  MutexLock lock(mu_);
  free_areas_.push_back(area_index);
}

}  // namespace moat::systrap_platform
