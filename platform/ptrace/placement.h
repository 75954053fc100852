// Placement: which host CPU a guest thread and its carrier share. A stop of the tracee must wake its carrier on the
// same CPU: there it costs a microsecond, across CPUs tens of them. So both are pinned together, and moved together:
//  - a new guest thread starts on its creator's CPU;
//  - a seat that keeps finding its CPU crowded while another is idle moves there when it wakes;
//  - seats that never sleep are spread by a balancer thread that runs only while some CPU is crowded;
//  - a guest thread that chose its CPUs (sched_setaffinity) sits on those only.
// "Active" seats are those whose carrier is not parked. Thread-safe. Lock: kScheduler.
#ifndef MOAT_PLATFORM_PTRACE_PLACEMENT_H_
#define MOAT_PLATFORM_PTRACE_PLACEMENT_H_

#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <memory>
#include <vector>

#include "platform/base/cpu_set.h"
#include "platform/base/mutex.h"
#include "platform/fiber/fiber.h"
#include "platform/fiber/parker.h"
#include "platform/fiber/thread.h"

namespace moat::ptrace_platform {

class Placement;

// One carrier thread and its tracee. Made and used on the carrier; the balancer may move it from its own thread.
class Seat final : public CarrierObserver {
 public:
  explicit Seat(Placement& placement);
  ~Seat() override;
  // Pins the calling thread, if `carrier` is new, and `tracee` (0: none yet) to the seat's CPU.
  void Sit(pid_t carrier, pid_t tracee);
  // Leaves only these CPUs to the seat, now and from now on. Any thread.
  void Restrict(const CpuSet& cpus);
  // Gives the seat up; on the carrier.
  void GetUp();
  int cpu() const { return cpu_.load(std::memory_order_relaxed); }
  void OnPark() override;
  void OnUnpark() override;

 private:
  friend class Placement;
  void MoveLocked(int cpu);
  bool MayUse(int cpu) const;

  Placement& placement_;
  std::atomic<int> cpu_{-1};
  pid_t carrier_ = 0;  // both under the placement's lock
  pid_t tracee_ = 0;
  CpuSet allowed_;  // host CPU numbers; empty: all
  bool active_ = false;
  int crowded_wakes_ = 0;
};

class Placement {
 public:
  // The CPUs that this process may use now.
  Placement();
  ~Placement();
  int cpu_count() const { return static_cast<int>(cpus_.size()); }

 private:
  friend class Seat;
  static constexpr Nanos kBalancePeriod = 20'000'000;
  static constexpr int kCrowdedWakes = 8;

  int Load(int cpu) const { return active_[cpu].load(std::memory_order_relaxed); }
  // The least crowded CPU, for `seat` if it is not null.
  int Idlest(const Seat* seat) const;
  void Enter(Seat& seat);
  void Leave(Seat& seat);
  void Balance();

  std::vector<int> cpus_;                 // host CPU numbers
  std::vector<std::atomic<int>> active_;  // per index of cpus_
  Mutex mu_{LockRank::kScheduler};
  std::vector<Seat*> seats_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> balancing_{false};
  std::atomic<bool> stopping_{false};
  Parker parker_;
  HostThread balancer_;
};

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_PLACEMENT_H_
