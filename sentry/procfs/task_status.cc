#include <fmt/format.h>

#include <bit>

#include "sentry/kernel/trace_link.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

constexpr Nanos kTick = kNanosPerSec / 100;  // USER_HZ
int64_t Ticks(Nanos n) { return n / kTick; }
uint64_t Kib(uint64_t bytes) { return bytes >> 10; }

std::string_view StateName(char letter) {
  switch (letter) {
    case 'R':
      return "R (running)";
    case 'S':
      return "S (sleeping)";
    case 'D':
      return "D (disk sleep)";
    case 'T':
      return "T (stopped)";
    case 't':
      return "t (tracing stop)";
    case 'Z':
      return "Z (zombie)";
    case 'X':
      return "X (dead)";
    default:
      return "I (idle)";
  }
}

uint32_t EncodeDevice(DeviceId d) { return (d.minor & 0xff) | (d.major << 8) | ((d.minor & ~0xffu) << 12); }

SignalSet PrivatePending(Task& task) {
  MutexLock lock(task.thread_group().signal_mutex());
  return task.signals().pending.set();
}

// Linux's scale: real-time -1 - rt_priority, others 20 + nice.
int64_t PriorityOf(const SchedState& s) {
  bool realtime = s.policy == SCHED_FIFO || s.policy == SCHED_RR;
  return realtime ? -1 - s.priority : 20 + s.nice;
}

Result<std::string> Stat(ProcFs& fs, Task& task, const VfsContext& ctx, bool whole_process) {
  ThreadGroup& group = task.thread_group();
  PidNamespace& ns = fs.ns();
  Task* caller = Caller(ctx);
  const bool permitted = caller == nullptr || caller->MayAccess(task, false);
  RefPtr<MemoryManager> mm = task.mm();
  MmUsage usage = mm ? mm->Usage() : MmUsage{};
  MmImage image = mm && permitted ? mm->image() : MmImage{};
  SchedState sched = task.sched();
  ResourceUsage self = whole_process ? group.Usage() : ResourceUsage{};
  CpuTimes own = task.cpu_times();
  const Nanos user = whole_process ? self.user : own.user, system = whole_process ? self.system : own.system;
  ResourceUsage children = group.ChildrenUsage();
  RefPtr<Tty> tty = group.controlling_tty();
  RefPtr<SignalActions> actions = group.actions();
  SignalSet pending = PrivatePending(task);
  const uint64_t kLow31 = 0x7fffffff;
  const bool zombie = group.IsZombie() && task.exited();
  const bool realtime = sched.policy == SCHED_FIFO || sched.policy == SCHED_RR;

  std::string s = fmt::format("{} ({}) {}", whole_process ? group.IdIn(ns) : task.TidIn(ns), task.comm(),
                              zombie ? 'Z' : task.StateLetter());
  s += fmt::format(" {} {} {} {} {} {}", group.ParentIdIn(ns), group.ProcessGroupIdIn(ns), group.SessionIdIn(ns),
                   tty ? EncodeDevice(tty->device()) : 0, group.ForegroundGroupIdIn(ns), mm ? 0x400000 : 0x40000c);
  s += fmt::format(" {} {} {} {}", self.minor_faults, children.minor_faults, self.major_faults, children.major_faults);
  s += fmt::format(" {} {} {} {}", Ticks(user), Ticks(system), Ticks(children.user), Ticks(children.system));
  s += fmt::format(" {} {} {} 0 {}", PriorityOf(sched), sched.nice, std::max(group.task_count(), 1),
                   Ticks(task.start_time()));
  s += fmt::format(" {} {} {}", usage.size, usage.rss / kPageSize, group.rlimits().Soft(RLIMIT_RSS));
  s += fmt::format(" {} {} {} 0 0", image.code_start, image.code_end, image.stack_start);
  s += fmt::format(" {} {} {} {}", pending.bits & kLow31, task.signal_mask().bits & kLow31,
                   actions ? actions->IgnoredSet().bits & kLow31 : 0, actions ? actions->CaughtSet().bits & kLow31 : 0);
  // wchan, nswap, cnswap, exit_signal, processor, rt_priority, policy, delays, guest times
  s += fmt::format(" {} 0 0 {} 0 {} {} 0 0 0", task.StateLetter() == 'R' ? 0 : 1,
                   whole_process ? group.exit_signal() : -1, realtime ? sched.priority : 0, sched.policy);
  s += fmt::format(" {} {} {} {} {} {} {} {}\n", image.data_start, image.data_end, image.brk_start, image.arg_start,
                   image.arg_end, image.env_start, image.env_end, permitted && zombie ? group.exit_status() : 0);
  return s;
}

void AddIds(std::string& s, const UserNamespace& viewer, const Credentials& c) {
  auto uid = [&](Kuid id) { return viewer.FromKuid(id); };
  auto gid = [&](Kgid id) { return viewer.FromKgid(id); };
  s += fmt::format("Uid:\t{}\t{}\t{}\t{}\n", uid(c.uid), uid(c.euid), uid(c.suid), uid(c.fsuid));
  s += fmt::format("Gid:\t{}\t{}\t{}\t{}\n", gid(c.gid), gid(c.egid), gid(c.sgid), gid(c.fsgid));
}

void AddMemory(std::string& s, MemoryManager& mm) {
  MmUsage u = mm.Usage();
  auto line = [&](const char* name, uint64_t bytes) { s += fmt::format("{}:\t{:8} kB\n", name, Kib(bytes)); };
  line("VmPeak", std::max(u.peak_size, u.size));
  line("VmSize", u.size);
  line("VmLck", u.locked);
  line("VmPin", 0);
  line("VmHWM", std::max(u.peak_rss, u.rss));
  line("VmRSS", u.rss);
  line("RssAnon", u.rss_anon);
  line("RssFile", u.rss_file);
  line("RssShmem", u.rss_shmem);
  line("VmData", u.data);
  line("VmStk", u.stack);
  line("VmExe", u.exec);
  line("VmLib", u.lib);
  line("VmPTE", (u.rss / kPageSize * 8 + kPageSize - 1) / kPageSize * kPageSize);
  line("VmSwap", 0);
  s += "HugetlbPages:\t       0 kB\nCoreDumping:\t0\nTHP_enabled:\t0\nuntag_mask:\t0xffffffffffffffff\n";
}

void AddSignals(std::string& s, Task& task) {
  ThreadGroup& group = task.thread_group();
  RefPtr<SignalActions> actions = group.actions();
  uint64_t limit = group.rlimits().Soft(RLIMIT_SIGPENDING);
  RefPtr<UserAccount> account = task.account();
  s += fmt::format("SigQ:\t{}/{}\n", account ? account->queued_signals.load(std::memory_order_relaxed) : 0, limit);
  s += fmt::format("SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\n", PrivatePending(task).bits,
                   group.SharedPendingSet().bits, task.signal_mask().bits);
  s += fmt::format("SigIgn:\t{:016x}\nSigCgt:\t{:016x}\n", actions ? actions->IgnoredSet().bits : 0,
                   actions ? actions->CaughtSet().bits : 0);
}

void AddCpus(std::string& s, ProcFs& fs, Task& task) {
  const int cpus = fs.kernel().cpus();
  const CpuSet chosen = task.sched().affinity;
  const CpuSet& affinity = chosen.empty() ? fs.kernel().allowed_cpus() : chosen;
  auto allowed = [&](int cpu) { return affinity.Has(cpu); };
  std::string mask;
  const int words = (cpus + 31) / 32;
  for (int w = words - 1; w >= 0; --w) {
    uint32_t bits = 0;
    for (int b = 0; b < 32 && w * 32 + b < cpus; ++b) bits |= uint32_t{allowed(w * 32 + b)} << b;
    mask += w == words - 1 ? fmt::format("{:x}", bits) : fmt::format(",{:08x}", bits);
  }
  std::string list;
  for (int cpu = 0; cpu < cpus; ++cpu) {
    if (!allowed(cpu)) continue;
    int last = cpu;
    while (last + 1 < cpus && allowed(last + 1)) ++last;
    if (!list.empty()) list += ',';
    list += cpu == last ? fmt::format("{}", cpu) : fmt::format("{}-{}", cpu, last);
    cpu = last;
  }
  s += fmt::format("Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\n", mask, list);
}

}  // namespace

Result<std::string> ProcessStat(ProcFs& fs, Task& task, const VfsContext& ctx) { return Stat(fs, task, ctx, true); }
Result<std::string> ThreadStat(ProcFs& fs, Task& task, const VfsContext& ctx) { return Stat(fs, task, ctx, false); }

Result<std::string> Status(ProcFs& fs, Task& task, const VfsContext& ctx) {
  ThreadGroup& group = task.thread_group();
  PidNamespace& ns = fs.ns();
  RefPtr<const Credentials> cred = task.credentials();
  const UserNamespace& viewer = *ctx.cred.user_ns;
  const bool zombie = group.IsZombie() && task.exited();
  RefPtr<FsContext> fs_context = task.fs_context();
  RefPtr<FdTable> fds = task.fd_table();
  RefPtr<MemoryManager> mm = task.mm();

  std::string s = fmt::format("Name:\t{}\n", task.comm());
  if (fs_context) s += fmt::format("Umask:\t{:04o}\n", fs_context->umask());
  s += fmt::format("State:\t{}\n", StateName(zombie ? 'Z' : task.StateLetter()));
  s += fmt::format("Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t{}\n", group.IdIn(ns), task.TidIn(ns),
                   group.ParentIdIn(ns), TraceLink::TracerIdIn(task, ns));
  AddIds(s, viewer, *cred);
  s += fmt::format("FDSize:\t{}\nGroups:\t", fds ? std::bit_ceil(static_cast<unsigned>(fds->Capacity())) : 0);
  for (Kgid gid : cred->groups) s += fmt::format("{} ", viewer.FromKgid(gid));
  s += '\n';
  auto ns_ids = [&](const char* name, Pid& pid) {
    s += fmt::format("{}:", name);
    for (const Pid::Number& n : pid.numbers()) {
      if (n.ns->level() >= ns.level()) s += fmt::format("\t{}", n.nr);
    }
    s += '\n';
  };
  ns_ids("NStgid", group.pid());
  if (RefPtr<Pid> pid = task.pid()) ns_ids("NSpid", *pid);
  s += fmt::format("NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n", group.ProcessGroupIdIn(ns), group.SessionIdIn(ns));
  if (mm) AddMemory(s, *mm);
  s += fmt::format("Threads:\t{}\n", std::max(group.task_count(), 1));
  AddSignals(s, task);
  s += fmt::format("CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\n",
                   cred->inheritable.bits, cred->permitted.bits, cred->effective.bits, cred->bounding.bits,
                   cred->ambient.bits);
  s += fmt::format("NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n", int{cred->no_new_privs},
                   task.seccomp_mode(), task.seccomp_mode() == 2 ? 1 : 0);
  s += "Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\tconditional enabled\n";
  AddCpus(s, fs, task);
  s += fmt::format("voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t0\n", task.voluntary_switches());
  return s;
}

Result<std::string> Statm(ProcFs&, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  MmUsage u = mm ? mm->Usage() : MmUsage{};
  return fmt::format("{} {} {} {} 0 {} 0\n", u.size / kPageSize, u.rss / kPageSize,
                     (u.rss_file + u.rss_shmem) / kPageSize, u.exec / kPageSize, (u.data + u.stack) / kPageSize);
}

Result<std::string> Sched(ProcFs& fs, Task& task, const VfsContext&) {
  SchedState s = task.sched();
  CpuTimes times = task.cpu_times();
  std::string out = fmt::format("{} ({}, #threads: {})\n", task.comm(), task.TidIn(fs.ns()),
                                std::max(task.thread_group().task_count(), 1));
  out += std::string(67, '-') + '\n';
  auto time = [&](const char* name, Nanos n) {
    out += fmt::format("{:<45}:{:>14}.{:06}\n", name, n / 1'000'000, n % 1'000'000);
  };
  auto number = [&](const char* name, int64_t n) { out += fmt::format("{:<45}:{:>21}\n", name, n); };
  time("se.exec_start", task.start_time());
  time("se.sum_exec_runtime", times.total());
  number("nr_switches", static_cast<int64_t>(task.voluntary_switches()));
  number("nr_voluntary_switches", static_cast<int64_t>(task.voluntary_switches()));
  number("nr_involuntary_switches", 0);
  number("policy", s.policy);
  number("prio", 100 + PriorityOf(s));
  return out;
}

Result<std::string> Schedstat(ProcFs&, Task& task, const VfsContext&) {
  return fmt::format("{} 0 {}\n", task.cpu_times().total(), task.voluntary_switches());
}

}  // namespace moat::proc
