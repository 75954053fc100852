// The generators and writers behind /proc/<pid>/*. One function per file; formats as in proc(5).
#ifndef MOAT_SENTRY_PROCFS_TASK_FILES_H_
#define MOAT_SENTRY_PROCFS_TASK_FILES_H_

#include "sentry/procfs/task_dir.h"

namespace moat::proc {

// task_status.cc
Result<std::string> ProcessStat(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> ThreadStat(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Status(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Statm(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Sched(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Schedstat(ProcFs& fs, Task& task, const VfsContext& ctx);

// task_maps.cc
Result<std::string> Maps(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Smaps(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> SmapsRollup(ProcFs& fs, Task& task, const VfsContext& ctx);

// task_image.cc: what execve left in memory
Result<std::string> Cmdline(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Environ(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Auxv(ProcFs& fs, Task& task, const VfsContext& ctx);
RefPtr<Inode> MakeMem(ProcFs& fs, RefPtr<Task> task, bool thread);

// task_settings.cc: small values, some of them writable
Result<std::string> Comm(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetComm(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> Limits(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> ProcessIo(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> ThreadIo(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Cgroup(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Cpuset(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> OomScore(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> OomScoreAdj(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetOomScoreAdj(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> OomAdj(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetOomAdj(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> LoginUid(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> SessionId(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Personality(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Wchan(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Syscall(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Stack(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> TimensOffsets(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> TimerSlack(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetTimerSlack(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> CoredumpFilter(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Children(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<std::string> Timers(ProcFs& fs, Task& task, const VfsContext& ctx);

// task_id_maps.cc
Result<std::string> UidMap(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetUidMap(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> GidMap(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetGidMap(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);
Result<std::string> Setgroups(ProcFs& fs, Task& task, const VfsContext& ctx);
Result<size_t> SetSetgroups(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset);

// task_mounts.cc
RefPtr<Inode> MakeMounts(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeMountinfo(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeMountstats(ProcFs& fs, RefPtr<Task> task, bool thread);

// task_links.cc
RefPtr<Inode> MakeExe(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeCwd(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeRoot(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeNsDir(ProcFs& fs, RefPtr<Task> task, bool thread);

// fd_dir.cc
RefPtr<Inode> MakeFdDir(ProcFs& fs, RefPtr<Task> task, bool thread);
RefPtr<Inode> MakeFdInfoDir(ProcFs& fs, RefPtr<Task> task, bool thread);

// map_files_dir.cc
RefPtr<Inode> MakeMapFilesDir(ProcFs& fs, RefPtr<Task> task, bool thread);

// subtask_dir.cc: /proc/<pid>/task
RefPtr<Inode> MakeSubtaskDir(ProcFs& fs, RefPtr<Task> task, bool thread);
// net_dir.cc: /proc/<pid>/net
RefPtr<Inode> MakeNetDir(ProcFs& fs, RefPtr<Task> task, bool thread);

}  // namespace moat::proc

#endif  // MOAT_SENTRY_PROCFS_TASK_FILES_H_
