#include "sentry/kernel/process_group.h"

#include <algorithm>

#include "sentry/kernel/kernel.h"

namespace moat {

Session::Session(RefPtr<Pid> id) : id_(std::move(id)) { id_->session = this; }

void Session::GroupGone() {
  if (--groups_ > 0) return;
  id_->session = nullptr;
  PidNamespace::ReleaseIfUnused(*id_);
}

ProcessGroup::ProcessGroup(RefPtr<Pid> id, RefPtr<Session> session) : id_(std::move(id)), session_(std::move(session)) {
  id_->process_group = this;
  session_->GroupAdded();
}

void ProcessGroup::Remove(ThreadGroup& g) {
  std::erase(members_, &g);
  if (!members_.empty()) return;
  id_->process_group = nullptr;
  PidNamespace::ReleaseIfUnused(*id_);
  session_->GroupGone();
}

bool ProcessGroup::IsOrphaned(const ThreadGroup* without) const {
  for (const ThreadGroup* g : members_) {
    if (g == without || g->zombie_.load(std::memory_order_relaxed)) continue;
    const ThreadGroup* parent = g->parent_;
    if (parent == nullptr && g->outside_job_ != nullptr && !g->outside_job_->orphaned()) return false;
    if (parent == nullptr || !parent->process_group_) continue;
    if (parent->process_group_ != this && &parent->process_group_->session() == session_.get()) return false;
  }
  return true;
}

bool ProcessGroup::HasStoppedMember() const {
  for (const ThreadGroup* g : members_) {
    MutexLock lock(g->signal_mu_);
    if (g->stop_signal_ != 0) return true;
  }
  return false;
}

}  // namespace moat
