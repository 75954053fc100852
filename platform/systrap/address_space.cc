#include "platform/systrap/address_space.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "platform/base/log.h"
#include "platform/systrap/context.h"

namespace moat::systrap_platform {

SystrapAddressSpace::SystrapAddressSpace(StubPool& pool, ReadyStub stub, const SharedSites& shared)
    : call_sites_(shared), pool_(pool), pid_(stub.pid), page_(stub.page), agent_(std::move(stub.agent)) {
  areas_.push_back(stub.area);
  idle_.push_back(
      std::make_unique<GuestThread>(std::move(stub.thread), pool.area(stub.area), StubPool::AreaAddress(stub.area)));
}

SystrapAddressSpace::~SystrapAddressSpace() {
  // Contexts hold a reference, so no use is left. A stub that nobody ever ran in is still waiting.
  bool ended;
  std::vector<uint32_t> areas;
  std::vector<std::unique_ptr<GuestThread>> idle;
  {
    MutexLock lock(mu_);
    ended = ended_;
    areas.swap(areas_);
    idle.swap(idle_);
  }
  // Its memory is empty by now: whoever had it has cleared and flushed it (sentry/mm), or nobody ever mapped anything.
  if (!ended && pending_.load(std::memory_order_acquire) == Pending::kNone && idle.size() == 1 && areas.size() == 1) {
    MutexLock applying(apply_mu_);
    ReadyStub stub{pid_, page_, areas[0], std::move(agent_), idle[0]->TakeListener()};
    if (pool_.GiveBack(stub)) return;
  }
  // All its guest threads are stopped: once killed, none of them touches memory again.
  if (!ended) pool_.Kill(pid_);
  for (uint32_t index : areas) pool_.FreeArea(index);
  pool_.FreePage(page_);
}

void SystrapAddressSpace::Push(const Command& c, bool later) {
  const uint64_t end = c.args[0] + c.args[1];
  // The stub's own pages are nobody's to change; the caller's own checks come long before.
  MOAT_CHECK(end > c.args[0] && end <= kMaxAddress);
  MutexLock lock(mu_);
  queue_.Push(c, later && !applying_);
  NotePendingLocked();
}

void SystrapAddressSpace::NotePendingLocked() {
  const Pending now = applying_ || (!queue_.empty() && !queue_.may_wait()) ? Pending::kUrgent
                      : queue_.empty()                                     ? Pending::kNone
                                                                           : Pending::kMayWait;
  pending_.store(now, std::memory_order_release);
}

void SystrapAddressSpace::PushMap(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset,
                                  bool later) {
  uint64_t flags = MAP_FIXED | MAP_NORESERVE | (shared ? MAP_SHARED : MAP_PRIVATE);
  Push({SYS_mmap, {addr, length, static_cast<uint64_t>(prot), flags, static_cast<uint64_t>(fd), offset}}, later);
}

void SystrapAddressSpace::Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) {
  PushMap(addr, length, prot, shared, fd, offset, /*later=*/false);
}

void SystrapAddressSpace::MapLater(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) {
  PushMap(addr, length, prot, shared, fd, offset, /*later=*/true);
}

void SystrapAddressSpace::Unmap(GuestAddr addr, uint64_t length) { Push({SYS_munmap, {addr, length, 0, 0, 0, 0}}); }

void SystrapAddressSpace::Protect(GuestAddr addr, uint64_t length, int prot) {
  Push({SYS_mprotect, {addr, length, static_cast<uint64_t>(prot), 0, 0, 0}});
}

void SystrapAddressSpace::Clear() {
  {
    MutexLock lock(mu_);
    queue_.Clear();
    NotePendingLocked();
  }
  Unmap(kMinAddress, kMaxAddress - kMinAddress);
}

bool SystrapAddressSpace::IsJustLocked(const seccomp_data& call) const {
  constexpr uint64_t kPage = 4096;
  if (queue_.size() != 1 || uses_ != 1) return false;
  const Command& c = queue_.front();
  if (c.number != static_cast<uint64_t>(call.nr) || c.args[0] != call.args[0] ||
      c.args[1] != ((call.args[1] + kPage - 1) & ~(kPage - 1))) {
    return false;
  }
  if (c.number == SYS_mmap) {
    return call.instruction_pointer == CopyAddress() && std::equal(c.args + 2, c.args + 6, call.args + 2);
  }
  return c.number == SYS_munmap || (c.number == SYS_mprotect && c.args[2] == call.args[2]);
}

bool SystrapAddressSpace::IsJust(const seccomp_data& call) {
  MutexLock lock(mu_);
  return IsJustLocked(call);
}

bool SystrapAddressSpace::TakeIfJust(const seccomp_data& call) {
  MutexLock lock(mu_);
  if (!IsJustLocked(call)) return false;
  queue_.Clear();
  NotePendingLocked();
  return true;
}

Result<void> SystrapAddressSpace::Flush(Context* caller) {
  if (pending_.load(std::memory_order_acquire) == Pending::kNone) return {};
  if (caller != nullptr && static_cast<SystrapContext*>(caller)->CanCarryOut(*this)) return {};
  MutexLock applying(apply_mu_);
  return ApplyLocked();
}

Result<void> SystrapAddressSpace::ApplyLocked() {
  Result<void> result;
  for (;;) {
    int n;
    {
      MutexLock lock(mu_);
      n = queue_.Take(pool_.page(page_).commands, COMMANDS_MAX);
      applying_ = n != 0;
      NotePendingLocked();
      if (n == 0) return result;
    }
    Result<void> ran = agent_.Answer(n);
    if (ran.ok()) ran = agent_.Receive();
    if (!ran.ok()) {  // the stub is dead
      MutexLock lock(mu_);
      applying_ = false;
      NotePendingLocked();
      return ran;
    }
    const auto error = static_cast<int64_t>(agent_.call().args[0]);
    if (error != 0 && result.ok()) {
      result = static_cast<Errno>(-error);
      MOAT_LOG(kWarning, "a memory operation of stub {} failed: {}", pid_, ErrnoName(result.error()));
    }
  }
}

Result<std::unique_ptr<GuestThread>> SystrapAddressSpace::TakeThread() {
  {
    MutexLock lock(mu_);
    if (ended_) return kESRCH;
    ++uses_;
    if (!idle_.empty()) {
      std::unique_ptr<GuestThread> thread = std::move(idle_.back());
      idle_.pop_back();
      return thread;
    }
  }
  Result<std::unique_ptr<GuestThread>> made = MakeThread();
  if (!made.ok()) GiveThread(nullptr);
  return made;
}

Result<std::unique_ptr<GuestThread>> SystrapAddressSpace::MakeThread() {
  const uint32_t index = TRY(pool_.TakeArea());
  pool_.PrepareArea(index);
  {
    MutexLock lock(mu_);
    areas_.push_back(index);
  }
  Area& area = pool_.area(index);
  const uint64_t address = StubPool::AreaAddress(index);
  Result<Listener> listener = [&]() -> Result<Listener> {
    MutexLock applying(apply_mu_);
    TRY(ApplyLocked());
    CommandPage& page = pool_.page(page_);
    page.commands[0] = {SYS_mmap,
                        {address, kAreaSize, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED,
                         static_cast<uint64_t>(pool_.areas_fd()), index * kAreaSize}};
    TRY(agent_.Answer(1));
    TRY(agent_.Receive());
    if (agent_.call().args[0] != 0) return kENOMEM;
    page.thread_area = address;
    page.thread_order.fetch_add(1, std::memory_order_release);
    WakeShared(page.thread_order);
    return pool_.AwaitThread(area.listener, pid_);
  }();
  if (!listener.ok()) {
    if (listener.error() == kESRCH) Break();
    return listener.error() == kESRCH ? kESRCH : kEAGAIN;
  }
  return std::make_unique<GuestThread>(*std::move(listener), area, address);
}

void SystrapAddressSpace::GiveThread(std::unique_ptr<GuestThread> thread) {
  bool ended = false;
  {
    MutexLock lock(mu_);
    // A stub whose only thread can serve again serves the next address space, once this one is gone: see the
    // destructor.
    const bool serves_again = thread != nullptr && thread->HasFrame() && areas_.size() == 1;
    if (thread != nullptr) idle_.push_back(std::move(thread));
    if (--uses_ == 0 && !ended_ && !serves_again) ended = ended_ = true;
  }
  if (ended) pool_.Kill(pid_);
}

std::optional<CodePatch> SystrapAddressSpace::PlanPatch(const CodeWindow& code, GuestAddr behind, uint32_t number) {
  return call_sites_.Plan(code, behind, number, LastUse());
}

void SystrapAddressSpace::ForgetPatches(GuestAddr start, GuestAddr end) { call_sites_.Forget(start, end); }

void SystrapAddressSpace::PlacePatches(const RefPtr<const PatchSet>& patches, uint64_t bias, GuestAddr start,
                                       GuestAddr end) {
  call_sites_.Place(patches, bias, start, end);
}

void SystrapAddressSpace::InheritPatches(const AddressSpace& parent) {
  call_sites_.CopyFrom(static_cast<const SystrapAddressSpace&>(parent).call_sites_);
}

void SystrapAddressSpace::Break() {
  bool first;
  {
    MutexLock lock(mu_);
    first = !std::exchange(ended_, true);
  }
  if (first) pool_.KillAndWait(pid_);
}

bool SystrapAddressSpace::LastUse() {
  MutexLock lock(mu_);
  return uses_ == 1;
}

}  // namespace moat::systrap_platform
