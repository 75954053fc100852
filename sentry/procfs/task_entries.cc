// The table of /proc/<pid>: to add a file, add a row and its function in task_files.h.
#include "sentry/procfs/task_files.h"

namespace moat {

const std::vector<TaskEntry>& TaskEntries() {
  using enum TaskGuard;
  constexpr auto kProcess = TaskEntry::kProcessOnly;
  constexpr auto kThread = TaskEntry::kThreadOnly;
  constexpr auto kBoth = TaskEntry::kBoth;
  static const std::vector<TaskEntry>* const entries = new std::vector<TaskEntry>{
      {"task", S_IFDIR | 0555, kAnyone, nullptr, nullptr, proc::MakeSubtaskDir, kProcess},
      {"fd", S_IFDIR | 0500, kAnyone, nullptr, nullptr, proc::MakeFdDir, kBoth},
      {"map_files", S_IFDIR | 0500, kAnyone, nullptr, nullptr, proc::MakeMapFilesDir, kProcess},
      {"fdinfo", S_IFDIR | 0555, kAnyone, nullptr, nullptr, proc::MakeFdInfoDir, kBoth},
      {"ns", S_IFDIR | 0511, kAnyone, nullptr, nullptr, proc::MakeNsDir, kBoth},
      {"net", S_IFDIR | 0555, kAnyone, nullptr, nullptr, proc::MakeNetDir, kBoth},
      {"environ", S_IFREG | 0400, kRead, proc::Environ},
      {"auxv", S_IFREG | 0400, kRead, proc::Auxv},
      {"status", S_IFREG | 0444, kAnyone, proc::Status},
      {"personality", S_IFREG | 0400, kReadAtUse, proc::Personality},
      {"limits", S_IFREG | 0444, kAnyone, proc::Limits},
      {"sched", S_IFREG | 0644, kAnyone, proc::Sched},
      {"comm", S_IFREG | 0644, kAnyone, proc::Comm, proc::SetComm},
      {"syscall", S_IFREG | 0400, kReadAtUse, proc::Syscall},
      {"cmdline", S_IFREG | 0444, kAnyone, proc::Cmdline},
      {"stat", S_IFREG | 0444, kAnyone, proc::ProcessStat, nullptr, nullptr, kProcess},
      {"stat", S_IFREG | 0444, kAnyone, proc::ThreadStat, nullptr, nullptr, kThread},
      {"statm", S_IFREG | 0444, kAnyone, proc::Statm},
      {"maps", S_IFREG | 0444, kRead, proc::Maps},
      {"mem", S_IFREG | 0600, kAnyone, nullptr, nullptr, proc::MakeMem, kBoth},
      {"cwd", S_IFLNK | 0777, kAnyone, nullptr, nullptr, proc::MakeCwd, kBoth},
      {"root", S_IFLNK | 0777, kAnyone, nullptr, nullptr, proc::MakeRoot, kBoth},
      {"exe", S_IFLNK | 0777, kAnyone, nullptr, nullptr, proc::MakeExe, kBoth},
      {"mounts", S_IFREG | 0444, kAnyone, nullptr, nullptr, proc::MakeMounts, kBoth},
      {"mountinfo", S_IFREG | 0444, kAnyone, nullptr, nullptr, proc::MakeMountinfo, kBoth},
      {"mountstats", S_IFREG | 0400, kAnyone, nullptr, nullptr, proc::MakeMountstats, kProcess},
      {"smaps", S_IFREG | 0444, kRead, proc::Smaps},
      {"smaps_rollup", S_IFREG | 0444, kRead, proc::SmapsRollup},
      {"wchan", S_IFREG | 0444, kAnyone, proc::Wchan},
      {"stack", S_IFREG | 0400, kAnyone, proc::Stack},
      {"schedstat", S_IFREG | 0444, kAnyone, proc::Schedstat},
      {"cpuset", S_IFREG | 0444, kAnyone, proc::Cpuset},
      {"cgroup", S_IFREG | 0444, kAnyone, proc::Cgroup},
      {"oom_score", S_IFREG | 0444, kAnyone, proc::OomScore},
      {"oom_adj", S_IFREG | 0644, kAnyone, proc::OomAdj, proc::SetOomAdj},
      {"oom_score_adj", S_IFREG | 0644, kAnyone, proc::OomScoreAdj, proc::SetOomScoreAdj},
      {"loginuid", S_IFREG | 0644, kAnyone, proc::LoginUid},
      {"sessionid", S_IFREG | 0444, kAnyone, proc::SessionId},
      {"coredump_filter", S_IFREG | 0644, kAnyone, proc::CoredumpFilter, nullptr, nullptr, kProcess},
      {"io", S_IFREG | 0400, kReadAtUse, proc::ProcessIo, nullptr, nullptr, kProcess},
      {"io", S_IFREG | 0400, kReadAtUse, proc::ThreadIo, nullptr, nullptr, kThread},
      {"uid_map", S_IFREG | 0644, kAnyone, proc::UidMap, proc::SetUidMap},
      {"gid_map", S_IFREG | 0644, kAnyone, proc::GidMap, proc::SetGidMap},
      {"setgroups", S_IFREG | 0644, kAnyone, proc::Setgroups, proc::SetSetgroups},
      {"timers", S_IFREG | 0444, kAnyone, proc::Timers, nullptr, nullptr, kProcess},
      {"timerslack_ns", S_IFREG | 0666, kAnyone, proc::TimerSlack, proc::SetTimerSlack, nullptr, kProcess},
      {"timens_offsets", S_IFREG | 0644, kAnyone, proc::TimensOffsets, nullptr, nullptr, kProcess},
      {"children", S_IFREG | 0444, kAnyone, proc::Children, nullptr, nullptr, kThread},
  };
  return *entries;
}

}  // namespace moat
