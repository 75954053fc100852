#include "platform/ptrace/address_space.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "platform/base/log.h"
#include "platform/ptrace/context.h"

namespace moat::ptrace_platform {

PtraceAddressSpace::~PtraceAddressSpace() {
  // Contexts hold a reference, so none is left. A stub that nobody ever ran in is still waiting.
  bool ended;
  {
    MutexLock lock(mu_);
    ended = ended_;
  }
  if (!ended) {
    pool_.Forget(stub_.pid);
    syscall(SYS_tgkill, stub_.pid, stub_.pid, SIGKILL);
  }
  pool_.Return(stub_.page);
}

void PtraceAddressSpace::Push(const stub::Command& c) {
  const uint64_t end = c.args[0] + c.args[1];
  // The trampoline is nobody's to change; the caller's own checks come long before.
  MOAT_CHECK(end > c.args[0] && end <= stub::kStubBase);
  MutexLock lock(mu_);
  if (!queue_.empty()) {
    stub::Command& last = queue_.back();
    bool adjacent = last.number == c.number && last.args[0] + last.args[1] == c.args[0];
    bool same_unmap = c.number == SYS_munmap;
    bool same_protect = c.number == SYS_mprotect && last.args[2] == c.args[2];
    bool same_map = c.number == SYS_mmap && last.args[2] == c.args[2] && last.args[3] == c.args[3] &&
                    last.args[4] == c.args[4] && last.args[5] + last.args[1] == c.args[5];
    if (adjacent && (same_unmap || same_protect || same_map)) {
      last.args[1] += c.args[1];
      return;
    }
  }
  queue_.push_back(c);
  pending_.fetch_add(1, std::memory_order_release);
}

void PtraceAddressSpace::Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) {
  uint64_t flags = MAP_FIXED | MAP_NORESERVE | (shared ? MAP_SHARED : MAP_PRIVATE);
  Push({SYS_mmap, {addr, length, static_cast<uint64_t>(prot), flags, static_cast<uint64_t>(fd), offset}});
}

void PtraceAddressSpace::Unmap(GuestAddr addr, uint64_t length) { Push({SYS_munmap, {addr, length, 0, 0, 0, 0}}); }

void PtraceAddressSpace::Protect(GuestAddr addr, uint64_t length, int prot) {
  Push({SYS_mprotect, {addr, length, static_cast<uint64_t>(prot), 0, 0, 0}});
}

void PtraceAddressSpace::Clear() {
  {
    MutexLock lock(mu_);
    pending_.fetch_sub(queue_.size(), std::memory_order_release);
    queue_.clear();
  }
  Unmap(stub::kMinAddress, stub::kStubBase - stub::kMinAddress);
}

Result<void> PtraceAddressSpace::Apply(Tracee& tracee) {
  MutexLock applying(apply_mu_);
  Result<void> result;
  for (;;) {
    int n;
    {
      MutexLock lock(mu_);
      n = static_cast<int>(std::min<size_t>(queue_.size(), stub::kMaxCommands));
      if (n == 0) return result;
      memcpy(stub_.commands, queue_.data(), static_cast<size_t>(n) * sizeof(stub::Command));
      queue_.erase(queue_.begin(), queue_.begin() + n);
    }
    Result<int64_t> error = tracee.RunBatch(stub_.commands, n);
    pending_.fetch_sub(static_cast<size_t>(n), std::memory_order_release);
    if (!error.ok()) return error.error();  // the stub is dead
    if (*error != 0 && result.ok()) {
      result = static_cast<Errno>(-*error);
      MOAT_LOG(kWarning, "a memory operation of stub {} failed: {}", stub_.pid, ErrnoName(result.error()));
    }
  }
}

Result<void> PtraceAddressSpace::Flush(Context* caller) {
  if (!HasPending()) return {};
  if (caller != nullptr) {
    auto* context = static_cast<PtraceContext*>(caller);
    if (context->BoundTo(*this)) return Apply(context->tracee());
    // A task that has not run in this space yet: its first Switch applies the queue before it enters the guest. But
    // others may be running in it.
  }
  for (;;) {
    bool running = false;
    {
      MutexLock lock(mu_);
      for (PtraceContext* c : contexts_) {
        if (c->InGuest()) {
          running = true;
          c->Kick();
        }
      }
    }
    // Nobody is in guest code: whoever enters next applies the queue first.
    if (!running || !HasPending()) return {};
    // A nap of the host thread, not of the fiber: who takes pages away from a space (InvalidateMapping) holds locks.
    uint32_t nobody_wakes = 0;
    const timespec nap{0, 50'000};
    syscall(SYS_futex, &nobody_wakes, FUTEX_WAIT_PRIVATE, 0, &nap, nullptr, 0);
  }
}

pid_t PtraceAddressSpace::TakeFirstThread() {
  MutexLock lock(mu_);
  if (first_thread_given_) return 0;
  first_thread_given_ = true;
  return stub_.pid;
}

void PtraceAddressSpace::AddContext(PtraceContext& context) {
  MutexLock lock(mu_);
  contexts_.push_back(&context);
}

bool PtraceAddressSpace::RemoveContext(PtraceContext& context) {
  bool ended;
  {
    MutexLock lock(mu_);
    std::erase(contexts_, &context);
    ended = EndedLocked();
  }
  if (ended) pool_.Forget(stub_.pid);
  return ended;
}

bool PtraceAddressSpace::IsLast(const PtraceContext& context) {
  MutexLock lock(mu_);
  return contexts_.size() == 1 && contexts_[0] == &context && spares_ == 0;
}

void PtraceAddressSpace::AddSpare() {
  MutexLock lock(mu_);
  ++spares_;
}

bool PtraceAddressSpace::RemoveSpare() {
  bool ended;
  {
    MutexLock lock(mu_);
    --spares_;
    ended = EndedLocked();
  }
  if (ended) pool_.Forget(stub_.pid);
  return ended;
}

bool PtraceAddressSpace::EndedLocked() {
  if (contexts_.empty() && spares_ == 0) ended_ = true;
  return ended_;
}

}  // namespace moat::ptrace_platform
