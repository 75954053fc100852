// The rows of /proc/sys. Values that the sandbox does not use are the kernel's defaults and cannot be written.
#include <fmt/format.h>

#include "fs/anon/inotify.h"
#include "fs/pseudofs/text_file.h"
#include "fs/vfs/file_locks.h"
#include "fs/vfs/permissions.h"
#include "sentry/kernel/random.h"
#include "sentry/kernel/system_info.h"
#include "sentry/procfs/sysctl.h"

namespace moat {
namespace {

using Text = Result<std::string>;
using Names = ProtectedNames;

// A random UUID, version 4 (RFC 9562).
std::string Uuid() {
  uint64_t hi = RandomU64(), lo = RandomU64();
  hi = (hi & ~0xf000ull) | 0x4000;
  lo = (lo & ~(3ull << 62)) | (1ull << 63);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", hi >> 32, (hi >> 16) & 0xffff, hi & 0xffff, lo >> 48,
                     lo & 0xffffffffffff);
}

RefPtr<UtsNamespace> Uts(ProcFs& fs, const VfsContext& ctx) {
  Task* t = Caller(ctx);
  return t != nullptr ? t->uts_ns() : fs.kernel().root_uts_ns();
}

Text BootId(ProcFs&, const VfsContext&) {
  static const std::string* const id = new std::string(Uuid());
  return *id;
}
Text RandomUuid(ProcFs&, const VfsContext&) { return Uuid(); }

Text Hostname(ProcFs& fs, const VfsContext& ctx) { return Uts(fs, ctx)->hostname(); }
Text Domainname(ProcFs& fs, const VfsContext& ctx) { return Uts(fs, ctx)->domainname(); }

Result<void> CheckUts(UtsNamespace& uts, const VfsContext& ctx, std::string_view name) {
  if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, uts.owner())) return kEPERM;
  return name.size() > 64 ? Result<void>(kEINVAL) : Result<void>();
}
Result<void> SetHostname(ProcFs& fs, const VfsContext& ctx, std::string_view v) {
  RefPtr<UtsNamespace> uts = Uts(fs, ctx);
  TRY(CheckUts(*uts, ctx, v));
  uts->set_hostname(v);
  return {};
}
Result<void> SetDomainname(ProcFs& fs, const VfsContext& ctx, std::string_view v) {
  RefPtr<UtsNamespace> uts = Uts(fs, ctx);
  TRY(CheckUts(*uts, ctx, v));
  uts->set_domainname(v);
  return {};
}

Text NsLastPid(ProcFs& fs, const VfsContext&) {
  MutexLock lock(fs.kernel().tree_mutex());
  return fmt::format("{}", fs.ns().last_pid());
}
Result<void> SetNsLastPid(ProcFs& fs, const VfsContext& ctx, std::string_view v) {
  if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, fs.ns().owner())) return kEPERM;
  int64_t pid = TRY(ParseDecimal(v, 0, PidNamespace::kPidMax - 1));
  MutexLock lock(fs.kernel().tree_mutex());
  fs.ns().set_last_pid(static_cast<int32_t>(pid));
  return {};
}

Text ThreadsMax(ProcFs& fs, const VfsContext&) { return fmt::format("{}", fs.kernel().thread_limit()); }
Text PidMax(ProcFs&, const VfsContext&) { return fmt::format("{}", PidNamespace::kPidMax); }
Text CapLastCap(ProcFs&, const VfsContext&) { return fmt::format("{}", CAP_LAST_CAP); }
Text OsRelease(ProcFs&, const VfsContext&) { return std::string(kSystemRelease); }
Text OsVersion(ProcFs&, const VfsContext&) { return std::string(kSystemVersion); }

Text AioRequests(ProcFs&, const VfsContext&) { return fmt::format("{}", AioContexts::total()); }

// A number that some part of the sandbox reads.
template <std::atomic<int32_t>& kValue>
Text Number(ProcFs&, const VfsContext&) {
  return fmt::format("{}", kValue.load(std::memory_order_relaxed));
}
template <std::atomic<int32_t>& kValue, int32_t kMax>
Result<void> SetNumber(ProcFs&, const VfsContext&, std::string_view v) {
  kValue.store(static_cast<int32_t>(TRY(ParseDecimal(v, 0, kMax))), std::memory_order_relaxed);
  return {};
}

Text OvercommitMemory(ProcFs& fs, const VfsContext&) {
  return fmt::format("{}", static_cast<int>(fs.kernel().commit_account().mode()));
}
Result<void> SetOvercommitMemory(ProcFs& fs, const VfsContext&, std::string_view v) {
  fs.kernel().commit_account().set_mode(static_cast<CommitAccount::Mode>(TRY(ParseDecimal(v, 0, 2))));
  return {};
}
Text OvercommitRatio(ProcFs& fs, const VfsContext&) { return fmt::format("{}", fs.kernel().commit_account().ratio()); }
Result<void> SetOvercommitRatio(ProcFs& fs, const VfsContext&, std::string_view v) {
  fs.kernel().commit_account().set_ratio(static_cast<int>(TRY(ParseDecimal(v, 0, INT32_MAX))));
  return {};
}
Text MmapMinAddr(ProcFs& fs, const VfsContext&) { return fmt::format("{}", fs.kernel().mm_environment().min_address); }

Text InotifyEvents(ProcFs&, const VfsContext&) { return fmt::format("{}", InotifyFile::kMaxQueuedEvents); }
Text InotifyWatches(ProcFs&, const VfsContext&) { return fmt::format("{}", InotifyFile::kMaxWatches); }

}  // namespace

const std::vector<SysctlRow>& SysctlTable() {
  static const std::vector<SysctlRow>* const table = new std::vector<SysctlRow>{
      // --- kernel ---
      {"kernel/ostype", 0444, "Linux"},
      {"kernel/osrelease", 0444, nullptr, OsRelease},
      {"kernel/version", 0444, nullptr, OsVersion},
      {"kernel/hostname", 0644, nullptr, Hostname, SetHostname},
      {"kernel/domainname", 0644, nullptr, Domainname, SetDomainname},
      {"kernel/pid_max", 0444, nullptr, PidMax},
      {"kernel/ns_last_pid", 0644, nullptr, NsLastPid, SetNsLastPid},
      {"kernel/threads-max", 0444, nullptr, ThreadsMax},
      {"kernel/cap_last_cap", 0444, nullptr, CapLastCap},
      {"kernel/ngroups_max", 0444, "65536"},
      {"kernel/overflowuid", 0444, "65534"},
      {"kernel/overflowgid", 0444, "65534"},
      {"kernel/random/boot_id", 0444, nullptr, BootId},
      {"kernel/random/uuid", 0444, nullptr, RandomUuid},
      {"kernel/random/entropy_avail", 0444, "256"},
      {"kernel/random/poolsize", 0444, "256"},
      {"kernel/core_pattern", 0444, "core"},
      {"kernel/core_uses_pid", 0444, "0"},
      {"kernel/core_pipe_limit", 0444, "0"},
      {"kernel/randomize_va_space", 0444, "2"},
      {"kernel/panic", 0444, "0"},
      {"kernel/tainted", 0444, "0"},
      {"kernel/printk", 0444, "4\t4\t1\t7"},
      {"kernel/dmesg_restrict", 0444, "1"},
      {"kernel/kptr_restrict", 0444, "2"},
      {"kernel/perf_event_paranoid", 0444, "3"},
      {"kernel/unprivileged_bpf_disabled", 0444, "2"},
      {"kernel/unprivileged_userns_clone", 0444, "1"},
      {"kernel/sched_rt_runtime_us", 0444, "950000"},
      {"kernel/sched_rt_period_us", 0444, "1000000"},
      {"kernel/sched_child_runs_first", 0444, "0"},
      {"kernel/shmmax", 0444, "18446744073692774399"},
      {"kernel/shmall", 0444, "18446744073692774399"},
      {"kernel/shmmni", 0444, "4096"},
      {"kernel/shm_rmid_forced", 0444, "0"},
      {"kernel/sem", 0444, "32000\t1024000000\t500\t32000"},
      {"kernel/msgmax", 0444, "8192"},
      {"kernel/msgmnb", 0444, "16384"},
      {"kernel/msgmni", 0444, "32000"},
      {"kernel/yama/ptrace_scope", 0444, "0"},
      {"kernel/pty/max", 0444, "4096"},
      {"kernel/pty/reserve", 0444, "1024"},
      {"kernel/seccomp/actions_avail", 0444, "kill_process kill_thread trap errno user_notif trace log allow"},
      {"kernel/keys/maxkeys", 0444, "200"},
      {"kernel/keys/maxbytes", 0444, "20000"},
      {"kernel/keys/root_maxkeys", 0444, "1000000"},
      {"kernel/keys/root_maxbytes", 0444, "25000000"},
      {"kernel/keys/gc_delay", 0444, "300"},
      {"kernel/keys/persistent_keyring_expiry", 0444, "259200"},
      {"kernel/arch", 0444, "x86_64"},
      {"kernel/auto_msgmni", 0444, "0"},
      {"kernel/cad_pid", 0600, "1"},
      {"kernel/ctrl-alt-del", 0444, "0"},
      {"kernel/msg_next_id", 0444, "-1"},
      {"kernel/sem_next_id", 0444, "-1"},
      {"kernel/shm_next_id", 0444, "-1"},
      {"kernel/nmi_watchdog", 0444, "0"},
      {"kernel/numa_balancing", 0444, "0"},
      {"kernel/panic_on_oops", 0444, "0"},
      {"kernel/panic_on_warn", 0444, "0"},
      {"kernel/perf_cpu_time_max_percent", 0444, "25"},
      {"kernel/perf_event_max_sample_rate", 0444, "100000"},
      {"kernel/perf_event_max_stack", 0444, "127"},
      {"kernel/perf_event_mlock_kb", 0444, "516"},
      {"kernel/print-fatal-signals", 0444, "0"},
      {"kernel/printk_delay", 0444, "0"},
      {"kernel/printk_devkmsg", 0444, "on"},
      {"kernel/printk_ratelimit", 0444, "5"},
      {"kernel/printk_ratelimit_burst", 0444, "10"},
      {"kernel/random/urandom_min_reseed_secs", 0444, "60"},
      {"kernel/random/write_wakeup_threshold", 0444, "256"},
      {"kernel/sched_autogroup_enabled", 0444, "0"},
      {"kernel/sched_cfs_bandwidth_slice_us", 0444, "5000"},
      {"kernel/sched_rr_timeslice_ms", 0444, "100"},
      {"kernel/sysctl_writes_strict", 0444, "1"},
      {"kernel/task_delayacct", 0444, "0"},
      {"kernel/timer_migration", 0444, "1"},
      {"kernel/watchdog", 0444, "0"},
      {"kernel/sysrq", 0444, "0"},
      // --- fs ---
      {"fs/file-max", 0444, "9223372036854775807"},
      {"fs/nr_open", 0444, "1048576"},
      {"fs/file-nr", 0444, "0\t0\t9223372036854775807"},
      {"fs/pipe-max-size", 0444, "1048576"},
      {"fs/pipe-user-pages-soft", 0444, "16384"},
      {"fs/pipe-user-pages-hard", 0444, "0"},
      {"fs/aio-max-nr", 0444, "65536"},
      {"fs/aio-nr", 0444, nullptr, AioRequests},
      {"fs/overflowuid", 0444, "65534"},
      {"fs/overflowgid", 0444, "65534"},
      {"fs/suid_dumpable", 0444, "0"},
      {"fs/protected_hardlinks", 0600, nullptr, Number<Names::hardlinks>, SetNumber<Names::hardlinks, 1>},
      {"fs/protected_symlinks", 0600, nullptr, Number<Names::symlinks>, SetNumber<Names::symlinks, 1>},
      {"fs/protected_fifos", 0600, nullptr, Number<Names::fifos>, SetNumber<Names::fifos, 2>},
      {"fs/protected_regular", 0600, nullptr, Number<Names::regular>, SetNumber<Names::regular, 2>},
      {"fs/dentry-state", 0444, "0\t0\t45\t0\t0\t0"},
      {"fs/dir-notify-enable", 0444, "1"},
      {"fs/inode-nr", 0444, "0\t0"},
      {"fs/inode-state", 0444, "0\t0\t0\t0\t0\t0\t0"},
      {"fs/lease-break-time", 0644, nullptr, Number<lease_break_time>, SetNumber<lease_break_time, INT32_MAX>},
      {"fs/leases-enable", 0444, "1"},
      {"fs/mount-max", 0444, "100000"},
      {"fs/inotify/max_queued_events", 0444, nullptr, InotifyEvents},
      {"fs/inotify/max_user_instances", 0444, "128"},
      {"fs/inotify/max_user_watches", 0444, nullptr, InotifyWatches},
      {"fs/epoll/max_user_watches", 0444, "2097152"},
      {"fs/mqueue/msg_default", 0444, "10"},
      {"fs/mqueue/msg_max", 0444, "10"},
      {"fs/mqueue/msgsize_default", 0444, "8192"},
      {"fs/mqueue/msgsize_max", 0444, "8192"},
      {"fs/mqueue/queues_max", 0444, "256"},
      // --- vm ---
      {"vm/overcommit_memory", 0644, nullptr, OvercommitMemory, SetOvercommitMemory},
      {"vm/overcommit_ratio", 0644, nullptr, OvercommitRatio, SetOvercommitRatio},
      {"vm/overcommit_kbytes", 0444, "0"},
      {"vm/max_map_count", 0444, "65530"},
      {"vm/mmap_min_addr", 0444, nullptr, MmapMinAddr},
      {"vm/swappiness", 0444, "60"},
      {"vm/nr_hugepages", 0444, "0"},
      {"vm/zone_reclaim_mode", 0444, "0"},
      {"vm/admin_reserve_kbytes", 0444, "8192"},
      {"vm/compaction_proactiveness", 0444, "20"},
      {"vm/dirty_background_bytes", 0444, "0"},
      {"vm/dirty_background_ratio", 0444, "10"},
      {"vm/dirty_bytes", 0444, "0"},
      {"vm/dirty_expire_centisecs", 0444, "3000"},
      {"vm/dirty_ratio", 0444, "20"},
      {"vm/dirty_writeback_centisecs", 0444, "500"},
      {"vm/dirtytime_expire_seconds", 0444, "43200"},
      {"vm/drop_caches", 0444, "0"},
      {"vm/extfrag_threshold", 0444, "500"},
      {"vm/hugetlb_shm_group", 0444, "0"},
      {"vm/laptop_mode", 0444, "0"},
      {"vm/legacy_va_layout", 0444, "0"},
      {"vm/lowmem_reserve_ratio", 0444, "256\t256\t32\t0\t0"},
      {"vm/memfd_noexec", 0444, "0"},
      {"vm/min_free_kbytes", 0444, "67584"},
      {"vm/nr_overcommit_hugepages", 0444, "0"},
      {"vm/numa_zonelist_order", 0444, "Node"},
      {"vm/oom_dump_tasks", 0444, "1"},
      {"vm/oom_kill_allocating_task", 0444, "0"},
      {"vm/page-cluster", 0444, "3"},
      {"vm/panic_on_oom", 0444, "0"},
      {"vm/stat_interval", 0444, "1"},
      {"vm/user_reserve_kbytes", 0444, "131072"},
      {"vm/vfs_cache_pressure", 0444, "100"},
      {"vm/watermark_boost_factor", 0444, "15000"},
      {"vm/watermark_scale_factor", 0444, "10"},
      {"vm/unprivileged_userfaultfd", 0444, "0"},
      // --- user ---
      {"user/max_user_namespaces", 0444, "65536"},
      {"user/max_pid_namespaces", 0444, "65536"},
      {"user/max_mnt_namespaces", 0444, "65536"},
      {"user/max_uts_namespaces", 0444, "65536"},
      {"user/max_ipc_namespaces", 0444, "65536"},
      {"user/max_net_namespaces", 0444, "65536"},
      {"user/max_cgroup_namespaces", 0444, "65536"},
      {"user/max_inotify_instances", 0444, "128"},
      {"user/max_inotify_watches", 0444, nullptr, InotifyWatches},
      {"debug/exception-trace", 0444, "1"},
      {"dev/tty/ldisc_autoload", 0444, "1"},
      // --- net ---
      {"net/core/somaxconn", 0444, "4096"},
      {"net/core/rmem_default", 0444, "212992"},
      {"net/core/rmem_max", 0444, "212992"},
      {"net/core/wmem_default", 0444, "212992"},
      {"net/core/wmem_max", 0444, "212992"},
      {"net/core/optmem_max", 0444, "131072"},
      {"net/unix/max_dgram_qlen", 0444, "512"},
  };
  return *table;
}

}  // namespace moat
