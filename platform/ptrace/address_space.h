// PtraceAddressSpace: the stub process of one guest address space, its queue of memory operations, and the contexts
// that run in it. See AddressSpace in platform/platform.h.
#ifndef MOAT_PLATFORM_PTRACE_ADDRESS_SPACE_H_
#define MOAT_PLATFORM_PTRACE_ADDRESS_SPACE_H_

#include <vector>

#include "platform/base/mutex.h"
#include "platform/platform.h"
#include "platform/ptrace/stub_pool.h"

namespace moat::ptrace_platform {

class PtraceContext;

class PtraceAddressSpace final : public AddressSpace {
 public:
  PtraceAddressSpace(StubPool& pool, const ReadyStub& stub) : pool_(pool), stub_(stub) {}
  ~PtraceAddressSpace() override;

  void Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) override;
  void Unmap(GuestAddr addr, uint64_t length) override;
  void Protect(GuestAddr addr, uint64_t length, int prot) override;
  Result<void> Flush(Context* caller) override;
  void Clear() override;

  // --- for PtraceContext, on its carrier ---
  pid_t pid() const { return stub_.pid; }
  bool HasPending() const { return pending_.load(std::memory_order_acquire) != 0; }
  // Applies the queue through `tracee`, a stopped thread of this stub. The first host error.
  Result<void> Apply(Tracee& tracee);
  // The stub's first thread, once; 0 when it has been given out.
  pid_t TakeFirstThread();
  void AddContext(PtraceContext& context);
  // True when no thread is left that could run guest code: the caller then kills the stub.
  bool RemoveContext(PtraceContext& context);
  // Whether RemoveContext would be true now. For `context`'s own carrier: nobody else can add one then.
  bool IsLast(const PtraceContext& context);
  // Counts threads that were made for contexts which have not run yet. RemoveSpare answers as RemoveContext.
  void AddSpare();
  bool RemoveSpare();

 private:
  void Push(const stub::Command& command);

  StubPool& pool_;
  const ReadyStub stub_;
  Mutex mu_{LockRank::kStub};
  std::vector<stub::Command> queue_ ABSL_GUARDED_BY(mu_);
  std::vector<PtraceContext*> contexts_ ABSL_GUARDED_BY(mu_);
  int spares_ ABSL_GUARDED_BY(mu_) = 0;
  bool first_thread_given_ ABSL_GUARDED_BY(mu_) = false;
  // The stub was killed and its number may be somebody else's by now.
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool EndedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::atomic<size_t> pending_{0};  // size of queue_, plus what is being applied
  // Held while a batch runs in the stub: the one lock of ours that spans host calls, because a batch is one step of
  // the address space. Only contexts of this address space wait for it.
  Mutex apply_mu_{LockRank::kAddressSpace};
};

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_ADDRESS_SPACE_H_
