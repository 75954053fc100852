#include "sentry/kernel/job_control.h"

#include <sys/ioctl.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task_exit.h"

namespace moat {

namespace {
Task& CallerOf(const VfsContext& ctx) { return *static_cast<Task*>(ctx.task); }
}  // namespace

Result<void> JobControl::CheckForeground(const VfsContext& ctx, Tty& tty, int signo) {
  if (ctx.task == nullptr) return {};
  Task& t = CallerOf(ctx);
  ThreadGroup& group = t.thread_group();
  const bool unstoppable = t.signal_mask().Has(signo) || group.actions()->Get(signo).handler == 1;
  DeferredSignals signals;
  MutexLock lock(kernel_.tree_mutex());
  ProcessGroup& mine = *group.process_group_;
  if (mine.session().controlling_tty != &tty) return {};
  if (!tty.foreground_is_outside.load(std::memory_order_relaxed) &&
      (!tty.job_slot.foreground || tty.job_slot.foreground == &mine))
    return {};
  if (signo == SIGTTIN) {
    if (unstoppable || mine.IsOrphaned()) return kEIO;
  } else {
    if (unstoppable) return {};
    if (mine.IsOrphaned()) return kEIO;
  }
  signals.AddToGroup(mine, signo);
  return kERESTARTSYS;
}

Result<void> JobControl::CheckRead(const VfsContext& ctx, Tty& tty) { return CheckForeground(ctx, tty, SIGTTIN); }
Result<void> JobControl::CheckChange(const VfsContext& ctx, Tty& tty) { return CheckForeground(ctx, tty, SIGTTOU); }

void JobControl::SignalForeground(Tty& tty, int signo) {
  DeferredSignals signals;
  MutexLock lock(kernel_.tree_mutex());
  if (auto* foreground = static_cast<ProcessGroup*>(tty.job_slot.foreground.get()); foreground != nullptr)
    signals.AddToGroup(*foreground, signo);
}

void JobControl::HungUp(Tty& tty) {
  DeferredSignals signals;
  std::vector<RefPtr<RefCounted>> dropped;
  MutexLock lock(kernel_.tree_mutex());
  auto* session = static_cast<Session*>(tty.job_slot.session.get());
  auto* foreground = static_cast<ProcessGroup*>(tty.job_slot.foreground.get());
  if (session == nullptr) return;
  if (session->leader != nullptr) {
    signals.Add(*session->leader, KernelSigInfo(SIGHUP));
    signals.Add(*session->leader, KernelSigInfo(SIGCONT));
  }
  if (foreground != nullptr) {
    session->old_foreground = RefPtr<Pid>(&foreground->id());
    signals.AddToGroup(*foreground, SIGHUP);
    signals.AddToGroup(*foreground, SIGCONT);
  }
  dropped.push_back(std::move(session->controlling_tty));
  dropped.push_back(std::move(tty.job_slot.foreground));
  dropped.push_back(std::move(tty.job_slot.session));
}

void JobControl::Opened(const VfsContext& ctx, Tty& tty) {
  if (ctx.task == nullptr) return;
  ThreadGroup& group = CallerOf(ctx).thread_group();
  MutexLock lock(kernel_.tree_mutex());
  Session& session = group.process_group_->session();
  if (session.leader != &group || session.controlling_tty || tty.job_slot.session) return;
  session.controlling_tty = RefPtr<Tty>(&tty);
  tty.job_slot.session = RefPtr<RefCounted>(&session);
  tty.job_slot.foreground = group.process_group_;
}

void JobControl::SetControllingTty(ThreadGroup& leader, RefPtr<Tty> tty) {
  MutexLock lock(kernel_.tree_mutex());
  Session& session = leader.process_group_->session();
  tty->job_slot.session = RefPtr<RefCounted>(&session);
  tty->job_slot.foreground = leader.process_group_;
  session.controlling_tty = std::move(tty);
}

void JobControl::LeaderExits(ThreadGroup& leader) {
  RefPtr<Tty> tty;
  DeferredSignals signals;
  {
    MutexLock lock(kernel_.tree_mutex());
    Session& session = leader.process_group_->session();
    if (session.leader != &leader) return;
    tty = session.controlling_tty;
    if (!tty) {
      // The terminal went before its leader: the group that was in the foreground is told now.
      if (session.old_foreground && session.old_foreground->process_group != nullptr) {
        signals.AddToGroup(*session.old_foreground->process_group, SIGHUP);
        signals.AddToGroup(*session.old_foreground->process_group, SIGCONT);
      }
      session.old_foreground = nullptr;
      return;
    }
    session.leader = nullptr;
  }
  tty->Hangup();
  HungUp(*tty);
}

RefPtr<Tty> JobControl::ControllingTty(const VfsContext& ctx) {
  if (ctx.task == nullptr) return nullptr;
  return CallerOf(ctx).thread_group().controlling_tty();
}

Result<int64_t> JobControl::SetForeground(const VfsContext& ctx, GuestMemory& memory, Tty& tty, GuestAddr arg) {
  int32_t id = 0;
  if (memory.CopyIn(&id, arg, sizeof id) != sizeof id) return kEFAULT;
  Task& t = CallerOf(ctx);
  TRY(CheckChange(ctx, tty));
  if (id < 0) return kEINVAL;
  RefPtr<PidNamespace> ns = t.pid_ns();
  RefPtr<RefCounted> old;
  MutexLock lock(kernel_.tree_mutex());
  Session& session = t.thread_group().process_group_->session();
  if (session.controlling_tty != &tty) return kENOTTY;
  Pid* pid = ns->Find(id);
  if (pid == nullptr || pid->process_group == nullptr) return kESRCH;
  if (&pid->process_group->session() != &session) return kEPERM;
  old = std::move(tty.job_slot.foreground);
  tty.job_slot.foreground = RefPtr<RefCounted>(pid->process_group);
  return 0;
}

Result<int64_t> JobControl::Ioctl(const VfsContext& ctx, GuestMemory& memory, Tty& tty, uint32_t cmd, uint64_t arg,
                                  bool through_master) {
  if (ctx.task == nullptr) return kENOTTY;
  Task& t = CallerOf(ctx);
  ThreadGroup& group = t.thread_group();
  RefPtr<PidNamespace> ns = t.pid_ns();
  auto answer = [&](int32_t value) -> Result<int64_t> {
    if (memory.CopyOut(arg, &value, sizeof value) != sizeof value) return kEFAULT;
    return 0;
  };
  switch (cmd) {
    case TIOCSCTTY: {
      std::vector<RefPtr<RefCounted>> dropped;
      MutexLock lock(kernel_.tree_mutex());
      Session& session = group.process_group_->session();
      if (session.leader == &group && session.controlling_tty == &tty) return 0;
      if (session.leader != &group || session.controlling_tty) return kEPERM;
      if (tty.job_slot.session) {
        // Only root may take a terminal away from another session.
        if (arg != 1 || !t.cred().HasCapability(CAP_SYS_ADMIN)) return kEPERM;
        auto* other = static_cast<Session*>(tty.job_slot.session.get());
        dropped.push_back(std::move(other->controlling_tty));
      }
      dropped.push_back(std::move(tty.job_slot.session));
      dropped.push_back(std::move(tty.job_slot.foreground));
      session.controlling_tty = RefPtr<Tty>(&tty);
      tty.job_slot.session = RefPtr<RefCounted>(&session);
      tty.job_slot.foreground = group.process_group_;
      return 0;
    }
    case TIOCNOTTY: {
      bool leader = false;
      {
        RefPtr<Tty> mine = group.controlling_tty();
        if (mine != &tty) return kENOTTY;
        MutexLock lock(kernel_.tree_mutex());
        leader = group.process_group_->session().leader == &group;
      }
      // A leader gives the terminal up for its whole session. (That any member loses it for itself alone, as Linux
      // has it, has no meaning here: the session owns the terminal.)
      if (leader) HungUp(tty);
      return 0;
    }
    case TIOCGPGRP: {
      int32_t id = 0;
      {
        MutexLock lock(kernel_.tree_mutex());
        if (!through_master && group.process_group_->session().controlling_tty != &tty) return kENOTTY;
        auto* foreground = static_cast<ProcessGroup*>(tty.job_slot.foreground.get());
        // A group outside of the sandbox has no id here, as one of an outer pid namespace has none on Linux.
        if (foreground != nullptr && !tty.foreground_is_outside.load(std::memory_order_relaxed))
          id = foreground->id().NrIn(*ns);
      }
      return answer(id);
    }
    case TIOCSPGRP:
      return SetForeground(ctx, memory, tty, arg);
    case TIOCGSID: {
      int32_t id = 0;
      {
        MutexLock lock(kernel_.tree_mutex());
        if (!through_master && group.process_group_->session().controlling_tty != &tty) return kENOTTY;
        auto* session = static_cast<Session*>(tty.job_slot.session.get());
        if (session == nullptr) return kENOTTY;
        id = session->id().NrIn(*ns);
      }
      return answer(id);
    }
    default:
      return kENOTTY;
  }
}

}  // namespace moat
