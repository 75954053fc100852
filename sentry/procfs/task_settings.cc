#include <fmt/format.h>
#include <sys/resource.h>

#include "sentry/kernel/process_timers.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

std::string_view FirstLine(std::string_view text) { return text.substr(0, std::min(text.find('\n'), text.find('\0'))); }

// May the caller change settings of `task`'s process? Its own, or with the capability.
bool SameUserOr(const VfsContext& ctx, Task& task, int cap) {
  RefPtr<const Credentials> target = task.credentials();
  return ctx.cred.euid == target->euid || ctx.cred.HasCapabilityIn(cap, *target->user_ns);
}

}  // namespace

Result<std::string> Comm(ProcFs&, Task& task, const VfsContext&) { return task.comm() + "\n"; }

Result<size_t> SetComm(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t) {
  Task* caller = Caller(ctx);
  if (caller == nullptr || &caller->thread_group() != &task.thread_group()) return kEINVAL;
  task.SetComm(FirstLine(text).substr(0, 15));
  return text.size();
}

Result<std::string> Limits(ProcFs&, Task& task, const VfsContext&) {
  struct Row {
    const char* name;
    const char* unit;
  };
  static constexpr Row kRows[kRlimitCount] = {
      {"Max cpu time", "seconds"},    {"Max file size", "bytes"},      {"Max data size", "bytes"},
      {"Max stack size", "bytes"},    {"Max core file size", "bytes"}, {"Max resident set", "bytes"},
      {"Max processes", "processes"}, {"Max open files", "files"},     {"Max locked memory", "bytes"},
      {"Max address space", "bytes"}, {"Max file locks", "locks"},     {"Max pending signals", "signals"},
      {"Max msgqueue size", "bytes"}, {"Max nice priority", ""},       {"Max realtime priority", ""},
      {"Max realtime timeout", "us"},
  };
  std::string s = fmt::format("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
  auto value = [](uint64_t v) { return v == ~uint64_t{0} ? std::string("unlimited") : fmt::format("{}", v); };
  for (int i = 0; i < kRlimitCount; ++i) {
    Rlimit r = task.thread_group().rlimits().Get(i);
    s += fmt::format("{:<25} {:<20} {:<20} ", kRows[i].name, value(r.soft), value(r.hard));
    s += kRows[i].unit[0] != '\0' ? fmt::format("{:<10}\n", kRows[i].unit) : std::string("\n");
  }
  return s;
}

namespace {

// What reaches the host's disks is the host's to know.
std::string IoText(const IoCounts& io) {
  return fmt::format(
      "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
      io.read_bytes, io.written_bytes, io.read_calls, io.write_calls);
}

}  // namespace

Result<std::string> Timers(ProcFs& fs, Task& task, const VfsContext&) {
  static constexpr const char* kNotify[] = {"signal", "none", "thread"};
  std::string s;
  for (const ProcessTimers::Info& t : task.thread_group().timers().List()) {
    const size_t how = static_cast<size_t>(t.event.notify & ~SIGEV_THREAD_ID);
    s += fmt::format("ID: {}\nsignal: {}/{:016x}\nnotify: {}/{}.{}\nClockID: {}\n", t.id, t.event.signo, t.event.value,
                     kNotify[how], t.target ? "tid" : "pid", t.target ? t.target->TidIn(fs.ns()) : task.TgidIn(fs.ns()),
                     t.clock);
  }
  return s;
}

Result<std::string> ProcessIo(ProcFs&, Task& task, const VfsContext&) { return IoText(task.thread_group().Usage().io); }
Result<std::string> ThreadIo(ProcFs&, Task& task, const VfsContext&) { return IoText(task.io().counts()); }

Result<std::string> Cgroup(ProcFs&, Task&, const VfsContext&) { return std::string("0::/\n"); }
Result<std::string> Cpuset(ProcFs&, Task&, const VfsContext&) { return std::string("/\n"); }

// --- out of memory ---

Result<std::string> OomScoreAdj(ProcFs&, Task& task, const VfsContext&) {
  return fmt::format("{}\n", task.thread_group().oom_score_adj.load(std::memory_order_relaxed));
}

Result<std::string> OomScore(ProcFs& fs, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  uint64_t total = std::max<uint64_t>(fs.kernel().total_memory(), kPageSize);
  int64_t share = mm ? static_cast<int64_t>(mm->Usage().rss * 1000 / total) : 0;
  int64_t score = 1000 + share + task.thread_group().oom_score_adj.load(std::memory_order_relaxed);
  return fmt::format("{}\n", std::max<int64_t>(score, 0) * 2 / 3);
}

Result<size_t> SetOomScoreAdj(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t) {
  int64_t value = TRY(ParseDecimal(text, -1000, 1000));
  if (!SameUserOr(ctx, task, CAP_SYS_RESOURCE)) return kEACCES;
  auto& adj = task.thread_group().oom_score_adj;
  if (value < adj.load(std::memory_order_relaxed) && !ctx.cred.HasCapability(CAP_SYS_RESOURCE)) return kEACCES;
  adj.store(static_cast<int>(value), std::memory_order_relaxed);
  return text.size();
}

// The older scale, -17..15.
Result<std::string> OomAdj(ProcFs&, Task& task, const VfsContext&) {
  int adj = task.thread_group().oom_score_adj.load(std::memory_order_relaxed);
  return fmt::format("{}\n", adj == 1000 ? 15 : adj * 17 / 1000);
}

Result<size_t> SetOomAdj(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t) {
  int64_t old_scale = TRY(ParseDecimal(text, -17, 15));
  int64_t value = old_scale == 15 ? 1000 : old_scale * 1000 / 17;
  TRY(SetOomScoreAdj(fs, task, ctx, fmt::format("{}", value), 0));
  return text.size();
}

// --- small constants and counters ---

Result<std::string> LoginUid(ProcFs&, Task&, const VfsContext&) { return fmt::format("{}", kNoId); }  // never set
Result<std::string> SessionId(ProcFs&, Task&, const VfsContext&) { return fmt::format("{}", kNoId); }

Result<std::string> Personality(ProcFs&, Task& task, const VfsContext&) {
  return fmt::format("{:08x}\n", task.personality);
}

Result<std::string> Wchan(ProcFs&, Task&, const VfsContext&) { return std::string("0"); }

Result<std::string> Syscall(ProcFs&, Task& task, const VfsContext&) {
  // Other tasks' registers belong to their carriers; only the number is shared.
  if (task.StateLetter() == 'R') return std::string("running\n");
  return fmt::format("{} 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n", static_cast<int64_t>(task.last_syscall()));
}

Result<std::string> Stack(ProcFs&, Task&, const VfsContext& ctx) {
  if (!ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEACCES;
  return std::string();  // there is no kernel stack to show
}

Result<std::string> TimensOffsets(ProcFs&, Task&, const VfsContext&) {
  return std::string("monotonic           0         0\nboottime            0         0\n");
}

Result<std::string> TimerSlack(ProcFs&, Task& task, const VfsContext& ctx) {
  Task* caller = Caller(ctx);
  if (caller != &task && !ctx.cred.HasCapability(CAP_SYS_NICE)) return kEPERM;
  return fmt::format("{}\n", task.timer_slack());
}

Result<size_t> SetTimerSlack(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t) {
  Task* caller = Caller(ctx);
  if (caller != &task && !ctx.cred.HasCapability(CAP_SYS_NICE)) return kEPERM;
  int64_t value = TRY(ParseDecimal(text, 0, INT64_MAX));
  task.set_timer_slack(value == 0 ? task.default_timer_slack() : static_cast<uint64_t>(value));
  return text.size();
}

Result<std::string> CoredumpFilter(ProcFs&, Task& task, const VfsContext&) {
  return task.mm() ? std::string("00000033\n") : std::string();
}

Result<std::string> Children(ProcFs& fs, Task& task, const VfsContext&) {
  std::string s;
  // Children belong to the process here: they are listed with its first thread.
  if (task.thread_group().leader() != &task) return s;
  for (RefPtr<ThreadGroup>& child : task.thread_group().children()) {
    if (int32_t id = child->IdIn(fs.ns()); id != 0) s += fmt::format("{} ", id);
  }
  return s;
}

}  // namespace moat::proc
