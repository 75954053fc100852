// SystrapAddressSpace: the stub process of one guest address space, its queue of memory operations, which the stub's
// agent carries out, and the stub threads that no context uses. See AddressSpace in platform/platform.h.
#ifndef MOAT_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_
#define MOAT_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_

#include <memory>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/platform.h"
#include "platform/systrap/call_sites.h"
#include "platform/systrap/guest_thread.h"
#include "platform/systrap/operation_queue.h"
#include "platform/systrap/stub_pool.h"

namespace moat::systrap_platform {

class SystrapAddressSpace final : public AddressSpace {
 public:
  // `shared` must outlive it.
  SystrapAddressSpace(StubPool& pool, ReadyStub stub, const SharedSites& shared);
  ~SystrapAddressSpace() override;

  void Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) override;
  void MapLater(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) override;
  bool MayWait() const override { return pending_.load(std::memory_order_acquire) == Pending::kMayWait; }
  void Unmap(GuestAddr addr, uint64_t length) override;
  void Protect(GuestAddr addr, uint64_t length, int prot) override;
  // The agent works beside running guest threads: nobody needs to be interrupted.
  Result<void> Flush(Context* caller) override;
  void Clear() override;
  std::optional<CodePatch> PlanPatch(const CodeWindow& code, GuestAddr behind, uint32_t number) override;
  void ForgetPatches(GuestAddr start, GuestAddr end) override;
  void PlacePatches(const RefPtr<const PatchSet>& patches, uint64_t bias, GuestAddr start, GuestAddr end) override;
  void InheritPatches(const AddressSpace& parent) override;

  // --- for SystrapContext ---
  const CallSites& call_sites() const { return call_sites_; }
  pid_t pid() const { return pid_; }
  // What no guest code may run without.
  bool HasPending() const { return pending_.load(std::memory_order_acquire) == Pending::kUrgent; }
  // Whether the queue is nothing but what `call` of the only guest thread asks the kernel for (munmap, mprotect, or the
  // handler's mmap): then the host can carry out the thread's own call, which spares the agent. Nobody can order
  // anything in between.
  bool IsJust(const seccomp_data& call);
  // Takes that operation off the queue.
  bool TakeIfJust(const seccomp_data& call);
  // A thread that waits for its first frame, and the use of the stub that goes with it. kEAGAIN: the host makes no
  // more; kESRCH: the stub has died.
  Result<std::unique_ptr<GuestThread>> TakeThread();
  // Ends a use. A thread with a frame can serve again; null: it is gone. The last one ends the stub.
  void GiveThread(std::unique_ptr<GuestThread> thread);
  // Kills the stub now and waits until it is dead: a thread of it is no longer where it should be, and no page of its
  // may serve another before it has stopped.
  void Break();
  // Whether the stub would end with the next GiveThread.
  bool LastUse();

 private:
  enum class Pending : uint8_t { kNone, kMayWait, kUrgent };
  void Push(const Command& command, bool later = false);
  void PushMap(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset, bool later);
  void NotePendingLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsJustLocked(const seccomp_data& call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<void> ApplyLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(apply_mu_);
  Result<std::unique_ptr<GuestThread>> MakeThread();

  CallSites call_sites_;
  StubPool& pool_;
  const pid_t pid_;
  const uint32_t page_;
  // Held while a batch runs in the stub, and while a thread is made: the one lock of ours that spans host calls,
  // because each is one step of the address space.
  Mutex apply_mu_{LockRank::kAddressSpace};
  Listener agent_ ABSL_GUARDED_BY(apply_mu_);

  Mutex mu_{LockRank::kStub};
  OperationQueue queue_ ABSL_GUARDED_BY(mu_);
  bool applying_ ABSL_GUARDED_BY(mu_) = false;  // what was taken from it is not done yet
  std::atomic<Pending> pending_{Pending::kNone};
  std::vector<std::unique_ptr<GuestThread>> idle_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> areas_ ABSL_GUARDED_BY(mu_);  // of all threads that it ever had
  int uses_ ABSL_GUARDED_BY(mu_) = 0;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;  // killed; its number may be somebody else's by now
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_ADDRESS_SPACE_H_
