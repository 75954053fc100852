#include "platform/ptrace/placement.h"

#include <algorithm>

#include "platform/base/log.h"

namespace moat::ptrace_platform {
namespace {

std::vector<int> AllowedCpus() {
  const CpuSet& set = HostThread::AllCpus();
  std::vector<int> cpus;
  for (int i = 0; i < set.limit(); ++i) {
    if (set.Has(i)) cpus.push_back(i);
  }
  return cpus;
}

void Pin(pid_t tid, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // A thread that has just died, or a cpuset that changed under us: running elsewhere is slow, not wrong.
  sched_setaffinity(tid, sizeof set, &set);
}

}  // namespace

Placement::Placement() : cpus_(AllowedCpus()), active_(cpus_.size()) {
  if (cpus_.size() < 2) return;
  auto thread = HostThread::Start("balancer", [this] { Balance(); });
  if (thread.ok()) balancer_ = std::move(*thread);
}

Placement::~Placement() {
  stopping_ = true;
  parker_.Unpark();
  if (balancer_.joinable()) balancer_.Join();
}

int Placement::Idlest(const Seat* seat) const {
  int best = -1;
  for (int i = 0; i < cpu_count(); ++i) {
    if (seat != nullptr && !seat->MayUse(i)) continue;
    if (best < 0 || Load(i) < Load(best)) best = i;
  }
  return std::max(best, 0);
}

void Placement::Enter(Seat& seat) {
  int cpu = seat.cpu();
  int load = active_[cpu].fetch_add(1, std::memory_order_relaxed) + 1;
  seat.active_ = true;
  if (load > 1 && Load(Idlest(&seat)) < load - 1 && !balancing_.load(std::memory_order_relaxed)) parker_.Unpark();
}

void Placement::Leave(Seat& seat) {
  active_[seat.cpu()].fetch_sub(1, std::memory_order_relaxed);
  seat.active_ = false;
}

// Sleeps until a CPU has two seats more than another; then looks every period, for as long as that lasts.
void Placement::Balance() {
  while (!stopping_.load(std::memory_order_relaxed)) {
    parker_.Park(balancing_.load(std::memory_order_relaxed) ? DeadlineAfter(kBalancePeriod) : kNoDeadline);
    MutexLock lock(mu_);
    int idlest = Idlest(nullptr);
    int busiest = 0;
    for (int i = 1; i < cpu_count(); ++i) {
      if (Load(i) > Load(busiest)) busiest = i;
    }
    bool crowded = Load(busiest) >= Load(idlest) + 2;
    // The first look only starts the watch: most crowds are gone a moment later.
    if (crowded && balancing_.load(std::memory_order_relaxed)) {
      auto it = std::find_if(seats_.begin(), seats_.end(),
                             [&](Seat* s) { return s->active_ && s->cpu() == busiest && s->MayUse(idlest); });
      if (it != seats_.end()) {
        (*it)->MoveLocked(idlest);
        std::rotate(it, it + 1, seats_.end());  // another one next time
      }
    }
    balancing_.store(crowded, std::memory_order_relaxed);
  }
}

Seat::Seat(Placement& placement) : placement_(placement) {}

Seat::~Seat() { MOAT_CHECK(carrier_ == 0); }

void Seat::GetUp() {
  if (carrier_ == 0) return;
  SetCarrierObserver(nullptr);
  MutexLock lock(placement_.mu_);
  if (active_) placement_.Leave(*this);
  std::erase(placement_.seats_, this);
  carrier_ = tracee_ = 0;
}

bool Seat::MayUse(int cpu) const {
  return allowed_.empty() || allowed_.Has(placement_.cpus_[static_cast<size_t>(cpu)]);
}

void Seat::Restrict(const CpuSet& cpus) {
  MutexLock lock(placement_.mu_);
  allowed_ = cpus;
  if (carrier_ != 0 && !MayUse(cpu())) MoveLocked(placement_.Idlest(this));
}

void Seat::MoveLocked(int cpu) {
  int old = cpu_.load(std::memory_order_relaxed);
  if (active_) {
    placement_.active_[old].fetch_sub(1, std::memory_order_relaxed);
    placement_.active_[cpu].fetch_add(1, std::memory_order_relaxed);
  }
  cpu_.store(cpu, std::memory_order_relaxed);
  if (tracee_ != 0) Pin(tracee_, placement_.cpus_[cpu]);
  if (carrier_ != 0) Pin(carrier_, placement_.cpus_[cpu]);
}

void Seat::Sit(pid_t carrier, pid_t tracee) {
  MutexLock lock(placement_.mu_);
  if (carrier_ == 0) {
    carrier_ = carrier;
    // Where the thread is now, which is where its creator ran; the idlest CPU if that is much less crowded.
    int host = sched_getcpu();
    auto it = std::find(placement_.cpus_.begin(), placement_.cpus_.end(), host);
    int cpu = it == placement_.cpus_.end() ? 0 : static_cast<int>(it - placement_.cpus_.begin());
    int idlest = placement_.Idlest(this);
    if (!MayUse(cpu) || placement_.Load(cpu) >= placement_.Load(idlest) + 2) cpu = idlest;
    cpu_.store(cpu, std::memory_order_relaxed);
    Pin(carrier_, placement_.cpus_[cpu]);
    placement_.seats_.push_back(this);
    placement_.Enter(*this);
    SetCarrierObserver(this);
  }
  tracee_ = tracee;
  if (tracee != 0) Pin(tracee, placement_.cpus_[cpu()]);
}

void Seat::OnPark() {
  MutexLock lock(placement_.mu_);  // the balancer may be moving this seat, and its count with it
  placement_.Leave(*this);
}

void Seat::OnUnpark() {
  MutexLock lock(placement_.mu_);
  int here = placement_.Load(cpu());
  int idlest = placement_.Idlest(this);
  crowded_wakes_ = here > placement_.Load(idlest) ? crowded_wakes_ + 1 : 0;
  if (crowded_wakes_ >= Placement::kCrowdedWakes) {
    crowded_wakes_ = 0;
    MoveLocked(idlest);
  }
  placement_.Enter(*this);
}

}  // namespace moat::ptrace_platform
