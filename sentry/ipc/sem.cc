#include "sentry/ipc/sem.h"

#include <sys/epoll.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"

namespace moat {
namespace {

int64_t Now() { return RealtimeNow() / kNanosPerSec; }

class UndoAtExit final : public ProcessExitHook {
 public:
  explicit UndoAtExit(RefPtr<SemTable> table) : table_(std::move(table)) {}
  void OnProcessExit(ThreadGroup& group) override { table_->ProcessEnds(group); }

 private:
  const RefPtr<SemTable> table_;
};

}  // namespace

RefPtr<SemTable> SemTable::Of(IpcNamespace& ns) {
  RefPtr<RefCounted> table = ns.slot(IpcNamespace::kSem);
  if (!table) table = ns.AttachOnce(IpcNamespace::kSem, MakeRef<SemTable>(ns.owner()));
  return RefPtr<SemTable>(static_cast<SemTable*>(table.get()));
}

Result<int> SemTable::Get(Task& t, int32_t key, int count, int flags) {
  if (count < 0 || count > kMaxPerSet) return kEINVAL;
  MutexLock lock(table_.mutex());
  return table_.Get(
      t.cred(), key, flags,
      [&]() -> Result<RefPtr<SemSet>> {
        if (count == 0) return kEINVAL;
        RefPtr<SemSet> s = MakeRef<SemSet>();
        s->sems.resize(static_cast<size_t>(count));
        s->ctime = Now();
        return s;
      },
      [&](SemSet& s) -> Result<void> {
        return static_cast<size_t>(count) > s.sems.size() ? Result<void>(kEINVAL) : Result<void>();
      });
}

Result<RefPtr<SemSet>> SemTable::Find(int id) {
  MutexLock lock(table_.mutex());
  return RefPtr<SemSet>(TRY(table_.Find(id)));
}

Result<void> SemTable::Operate(Task& t, SemSet& set, const std::vector<sembuf>& ops, size_t* blocked) {
  bool alters = false, undo = false, changed = false;
  {
    MutexLock lock(table_.mutex());
    if (set.removed) return kEIDRM;
    for (const sembuf& op : ops) {
      if (op.sem_num >= set.sems.size()) return kEFBIG;
      alters |= op.sem_op != 0;
      undo |= (op.sem_flg & SEM_UNDO) && op.sem_op != 0;
    }
    TRY(CheckIpc(t.cred(), set.perm, table_.owner(), alters ? 0222 : 0444));
    ThreadGroup* group = &t.thread_group();
    auto own = set.undo.find(group);
    // A dry run on copies of the values that are touched.
    std::map<uint16_t, int> values;
    std::map<uint16_t, int> adjustments;
    for (size_t i = 0; i < ops.size(); ++i) {
      const sembuf& op = ops[i];
      int& value = values.try_emplace(op.sem_num, set.sems[op.sem_num].value).first->second;
      const bool stuck = op.sem_op == 0 ? value != 0 : value + op.sem_op < 0;
      if (stuck) {
        *blocked = i;
        return kEAGAIN;
      }
      if (value + op.sem_op > kMaxValue) return kERANGE;
      value += op.sem_op;
      if ((op.sem_flg & SEM_UNDO) && op.sem_op != 0) {
        int& a = adjustments.try_emplace(op.sem_num, own != set.undo.end() ? own->second[op.sem_num] : 0).first->second;
        a -= op.sem_op;
        if (a < -kMaxValue - 1 || a > kMaxValue) return kERANGE;
      }
    }
    for (auto& [number, value] : values) {
      changed |= set.sems[number].value != value;
      set.sems[number].value = value;
    }
    for (const sembuf& op : ops) set.sems[op.sem_num].last_pid = t.RootTgid();
    if (!adjustments.empty()) {
      std::vector<int>& mine = own != set.undo.end() ? own->second : set.undo[group];
      mine.resize(set.sems.size());
      for (auto& [number, a] : adjustments) mine[number] = a;
    }
    if (undo && own == set.undo.end()) group->AddExitHook(MakeRef<UndoAtExit>(RefPtr<SemTable>(this)));
    set.otime = Now();
  }
  if (changed) set.queue.Notify(EPOLLIN);
  return {};
}

void SemTable::NoteWaiting(SemSet& set, const sembuf& op, int change) {
  MutexLock lock(table_.mutex());
  SemSet::Semaphore& s = set.sems[op.sem_num];
  (op.sem_op == 0 ? s.waiting_zero : s.waiting_more) += change;
}

void SemTable::ProcessEnds(ThreadGroup& group) {
  std::vector<RefPtr<SemSet>> changed;
  {
    MutexLock lock(table_.mutex());
    for (auto& [index, set] : table_.objects()) {
      auto at = set->undo.find(&group);
      if (at == set->undo.end()) continue;
      for (size_t i = 0; i < at->second.size(); ++i) {
        if (at->second[i] == 0) continue;
        set->sems[i].value = std::clamp(set->sems[i].value + at->second[i], 0, kMaxValue);
        set->sems[i].last_pid = group.RootId();
      }
      set->undo.erase(at);
      set->otime = Now();
      changed.push_back(set);
    }
  }
  for (auto& set : changed) set->queue.Notify(EPOLLIN);
}

// --- semctl ---

Result<semid_ds> SemTable::Stat(Task& t, int id, bool by_index, bool check, int* id_out) {
  MutexLock lock(table_.mutex());
  SemSet* s = TRY(by_index ? table_.FindIndex(id) : table_.Find(id));
  if (check) TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0444));
  *id_out = s->id;
  semid_ds ds{};
  ds.sem_perm = EncodePerm(t.user_ns(), s->perm, s->id);
  ds.sem_otime = s->otime;
  ds.sem_ctime = s->ctime;
  ds.sem_nsems = s->sems.size();
  return ds;
}

Result<void> SemTable::Set(Task& t, int id, const semid_ds& ds) {
  MutexLock lock(table_.mutex());
  SemSet* s = TRY(table_.Find(id));
  TRY(CheckIpcOwner(t.cred(), s->perm, table_.owner()));
  TRY(ApplyPerm(t.user_ns(), ds.sem_perm, &s->perm));
  s->ctime = Now();
  return {};
}

Result<void> SemTable::Remove(Task& t, int id) {
  RefPtr<SemSet> gone;
  {
    MutexLock lock(table_.mutex());
    SemSet* s = TRY(table_.Find(id));
    TRY(CheckIpcOwner(t.cred(), s->perm, table_.owner()));
    gone = table_.Remove(*s);
  }
  gone->queue.Notify(EPOLLIN);
  return {};
}

Result<int> SemTable::GetOne(Task& t, int id, int number, int command) {
  RefPtr<PidNamespace> pids = t.pid_ns();
  int32_t pid;
  {
    MutexLock lock(table_.mutex());
    SemSet* s = TRY(table_.Find(id));
    TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0444));
    if (number < 0 || static_cast<size_t>(number) >= s->sems.size()) return kEINVAL;
    const SemSet::Semaphore& sem = s->sems[static_cast<size_t>(number)];
    if (command == GETVAL) return sem.value;
    if (command == GETNCNT) return sem.waiting_more;
    if (command == GETZCNT) return sem.waiting_zero;
    pid = sem.last_pid;
  }
  // The table knows root ids; the caller's namespace may have another number, or none.
  RefPtr<Pid> found = t.kernel().FindPid(pid, *t.kernel().root_pid_ns());
  return found ? found->NrIn(*pids) : 0;
}

Result<void> SemTable::SetValue(Task& t, int id, int number, int value) {
  RefPtr<SemSet> set;
  {
    MutexLock lock(table_.mutex());
    SemSet* s = TRY(table_.Find(id));
    if (value < 0 || value > kMaxValue) return kERANGE;
    if (number < 0 || static_cast<size_t>(number) >= s->sems.size()) return kEINVAL;
    TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0222));
    s->sems[static_cast<size_t>(number)].value = value;
    s->sems[static_cast<size_t>(number)].last_pid = t.RootTgid();
    for (auto& [group, adjustments] : s->undo) adjustments[static_cast<size_t>(number)] = 0;
    s->ctime = Now();
    set = RefPtr<SemSet>(s);
  }
  set->queue.Notify(EPOLLIN);
  return {};
}

Result<std::vector<uint16_t>> SemTable::GetAll(Task& t, int id) {
  MutexLock lock(table_.mutex());
  SemSet* s = TRY(table_.Find(id));
  TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0444));
  std::vector<uint16_t> values;
  for (auto& sem : s->sems) values.push_back(static_cast<uint16_t>(sem.value));
  return values;
}

Result<int> SemTable::Count(int id) {
  MutexLock lock(table_.mutex());
  return static_cast<int>(TRY(table_.Find(id))->sems.size());
}

Result<void> SemTable::SetAll(Task& t, int id, const std::vector<uint16_t>& values) {
  RefPtr<SemSet> set;
  {
    MutexLock lock(table_.mutex());
    SemSet* s = TRY(table_.Find(id));
    TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0222));
    if (values.size() != s->sems.size()) return kEIDRM;
    for (uint16_t v : values) {
      if (v > kMaxValue) return kERANGE;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      s->sems[i].value = values[i];
      s->sems[i].last_pid = t.RootTgid();
    }
    for (auto& [group, adjustments] : s->undo) std::fill(adjustments.begin(), adjustments.end(), 0);
    s->ctime = Now();
    set = RefPtr<SemSet>(s);
  }
  set->queue.Notify(EPOLLIN);
  return {};
}

SemTable::Totals SemTable::GetTotals() {
  MutexLock lock(table_.mutex());
  Totals totals{static_cast<int>(table_.objects().size()), 0, table_.HighestIndex()};
  for (auto& [index, s] : table_.objects()) totals.semaphores += static_cast<int>(s->sems.size());
  return totals;
}

}  // namespace moat
