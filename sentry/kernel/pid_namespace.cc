#include "sentry/kernel/pid_namespace.h"

#include <algorithm>
#include <atomic>

#include "sentry/kernel/namespaces.h"

namespace moat {

namespace {
constexpr int kMaxLevels = 32;
// Numbers below this are left to the boot when the search wraps around, as Linux does.
constexpr int32_t kReservedPids = 300;
}  // namespace

int32_t Pid::NrIn(const PidNamespace& ns) const {
  size_t level = static_cast<size_t>(ns.level());
  if (level >= numbers_.size() || numbers_[level].ns != &ns) return 0;
  return numbers_[level].nr;
}

RefPtr<PidNamespace> PidNamespace::CreateRoot(RefPtr<UserNamespace> owner) {
  RefPtr<PidNamespace> ns = MakeRef<PidNamespace>();
  ns->owner_ = std::move(owner);
  ns->id_ = NextNamespaceId();
  return ns;
}

Result<RefPtr<PidNamespace>> PidNamespace::CreateChild(RefPtr<PidNamespace> parent, RefPtr<UserNamespace> owner) {
  if (parent->level() + 1 >= kMaxLevels) return kENOSPC;
  RefPtr<PidNamespace> ns = CreateRoot(std::move(owner));
  ns->level_ = parent->level() + 1;
  ns->parent_ = std::move(parent);
  return ns;
}

bool PidNamespace::IsAncestorOf(const PidNamespace& o) const {
  const PidNamespace* ns = &o;
  while (ns != nullptr && ns->level_ > level_) ns = ns->parent();
  return ns == this;
}

Result<RefPtr<Pid>> PidNamespace::Allocate(std::span<const int32_t> wanted) {
  RefPtr<Pid> pid = AdoptRef(new Pid);
  std::vector<PidNamespace*> chain;  // innermost first
  for (PidNamespace* ns = this; ns != nullptr; ns = ns->parent()) chain.push_back(ns);
  if (wanted.size() > chain.size()) return kEINVAL;
  pid->numbers_.resize(chain.size());
  Errno failure = Errno::kOK;
  size_t done = 0;
  for (; done < chain.size(); ++done) {
    PidNamespace& ns = *chain[done];
    int32_t nr = 0;
    if (ns.dying) {
      failure = kENOMEM;
    } else if (done < wanted.size()) {
      nr = wanted[done];
      if (nr < 1 || nr >= kPidMax || (nr != 1 && ns.last_pid_ == 0 && ns.pids_.empty())) {
        failure = kEINVAL;
      } else if (ns.pids_.contains(nr)) {
        failure = kEEXIST;
      }
    } else {
      int32_t candidate = ns.last_pid_;
      for (int32_t tries = 0; tries < kPidMax; ++tries) {
        if (++candidate >= kPidMax) candidate = kReservedPids;
        if (!ns.pids_.contains(candidate)) {
          nr = candidate;
          break;
        }
      }
      if (nr == 0) failure = kEAGAIN;
      ns.last_pid_ = candidate;
    }
    if (failure != Errno::kOK) break;
    ns.pids_[nr] = pid;
    pid->numbers_[ns.level_] = {RefPtr<PidNamespace>(&ns), nr};
  }
  if (failure != Errno::kOK) {
    for (size_t i = 0; i < done; ++i) chain[i]->pids_.erase(pid->numbers_[chain[i]->level_].nr);
    return failure;
  }
  static std::atomic<uint64_t> next_id{1};
  pid->id_ = next_id.fetch_add(1, std::memory_order_relaxed);
  return pid;
}

Pid* PidNamespace::Find(int32_t nr) const {
  auto it = pids_.find(nr);
  return it == pids_.end() ? nullptr : it->second.get();
}

void PidNamespace::ReleaseIfUnused(Pid& pid) {
  if (pid.task != nullptr || pid.thread_group != nullptr || pid.process_group != nullptr || pid.session != nullptr)
    return;
  RefPtr<Pid> keep(&pid);
  for (const Pid::Number& n : pid.numbers_) {
    auto it = n.ns->pids_.find(n.nr);
    if (it != n.ns->pids_.end() && it->second == &pid) n.ns->pids_.erase(it);
  }
}

ThreadGroup* PidNamespace::init() const {
  Pid* first = Find(1);
  return first == nullptr ? nullptr : first->thread_group;
}

std::vector<int32_t> PidNamespace::ThreadGroupIds() const {
  std::vector<int32_t> ids;
  for (const auto& [nr, pid] : pids_) {
    if (pid->thread_group != nullptr) ids.push_back(nr);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace moat
