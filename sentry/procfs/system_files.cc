#include "sentry/procfs/system_files.h"

#include <fmt/format.h>

#include <cmath>

#include "fs/pseudofs/text_file.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/system_info.h"

namespace moat {
namespace {

constexpr Nanos kTick = kNanosPerSec / 100;

// Load averages decay between looks: the number of running tasks is sampled when somebody asks.
class LoadAverage {
 public:
  std::array<double, 3> Sample(int running) {
    MutexLock lock(mu_);
    Nanos now = MonotonicNow();
    double seconds = static_cast<double>(now - last_) / kNanosPerSec;
    last_ = now;
    constexpr double kPeriods[3] = {60, 300, 900};
    for (int i = 0; i < 3; ++i) {
      double keep = std::exp(-seconds / kPeriods[i]);
      averages_[i] = averages_[i] * keep + running * (1 - keep);
    }
    return averages_;
  }

 private:
  Mutex mu_{LockRank::kLeaf};
  Nanos last_ ABSL_GUARDED_BY(mu_) = MonotonicNow();
  std::array<double, 3> averages_ ABSL_GUARDED_BY(mu_){};
};

std::string Meminfo(Kernel& kernel) {
  MemoryInfo m = ReadMemoryInfo(kernel);
  std::string s;
  auto line = [&](const char* name, uint64_t bytes) {
    s += fmt::format("{:<16}{:8} kB\n", std::string(name) + ":", bytes >> 10);
  };
  line("MemTotal", m.total);
  line("MemFree", m.free);
  line("MemAvailable", m.available);
  line("Buffers", 0);
  line("Cached", m.page_cache);
  line("SwapCached", 0);
  line("Active", m.anonymous + m.page_cache);
  line("Inactive", 0);
  line("Active(anon)", m.anonymous);
  line("Inactive(anon)", 0);
  line("Active(file)", m.page_cache);
  line("Inactive(file)", 0);
  line("Unevictable", 0);
  line("Mlocked", 0);
  line("SwapTotal", 0);
  line("SwapFree", 0);
  line("Dirty", 0);
  line("Writeback", 0);
  line("AnonPages", m.anonymous);
  line("Mapped", m.page_cache);
  line("Shmem", m.shared);
  line("KReclaimable", 0);
  line("Slab", 0);
  line("SReclaimable", 0);
  line("SUnreclaim", 0);
  line("KernelStack", static_cast<uint64_t>(kernel.task_count()) * 64 << 10);
  line("PageTables", 0);
  line("CommitLimit", kernel.commit_account().limit());
  line("Committed_AS", kernel.commit_account().committed());
  line("VmallocTotal", 0);
  line("VmallocUsed", 0);
  s += "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n";
  s += "Hugepagesize:       2048 kB\nHugetlb:               0 kB\n";
  return s;
}

struct CpuUse {
  Nanos user = 0, system = 0, idle = 0;
};

CpuUse TotalCpuUse(ProcFs& fs) {
  CpuUse use;
  for (RefPtr<ThreadGroup>& g : fs.kernel().ThreadGroups(*fs.kernel().root_pid_ns())) {
    ResourceUsage own = g->Usage(), children = g->ChildrenUsage();
    use.user += own.user + children.user;
    use.system += own.system + children.system;
  }
  Nanos all = ReadHostClock(CLOCK_BOOTTIME) * fs.kernel().allowed_cpus().count();
  use.idle = std::max<Nanos>(all - use.user - use.system, 0);
  return use;
}

std::string Stat(ProcFs& fs) {
  Kernel& kernel = fs.kernel();
  const int cpus = kernel.cpus();
  CpuUse use = TotalCpuUse(fs);
  auto line = [](const std::string& name, const CpuUse& u, int share) {
    return fmt::format("{} {} 0 {} {} 0 0 0 0 0 0\n", name, u.user / share / kTick, u.system / share / kTick,
                       u.idle / share / kTick);
  };
  std::string s = line("cpu ", use, 1);
  for (int i = 0; i < cpus; ++i) s += line(fmt::format("cpu{}", i), use, cpus);
  uint64_t switches = 0;
  for (RefPtr<ThreadGroup>& g : kernel.ThreadGroups(*kernel.root_pid_ns())) switches += g->Usage().voluntary_switches;
  Nanos boot = RealtimeNow() - ReadHostClock(CLOCK_BOOTTIME);
  s += fmt::format("intr 0\nctxt {}\nbtime {}\nprocesses {}\nprocs_running {}\nprocs_blocked 0\n", switches,
                   boot / kNanosPerSec, kernel.forks_since_boot(), std::max(kernel.RunningTasks(), 1));
  s += "softirq 0 0 0 0 0 0 0 0 0 0 0\n";
  return s;
}

std::string Uptime(ProcFs& fs) {
  Nanos up = ReadHostClock(CLOCK_BOOTTIME), idle = TotalCpuUse(fs).idle;
  auto centis = [](Nanos n) { return n / (kNanosPerSec / 100) % 100; };
  return fmt::format("{}.{:02} {}.{:02}\n", up / kNanosPerSec, centis(up), idle / kNanosPerSec, centis(idle));
}

std::string Filesystems() {
  std::string s;
  for (FileSystemType* t : vfs::FileSystemTypes())
    s += fmt::format("{}\t{}\n", t->needs_device() ? "" : "nodev", t->name());
  return s;
}

std::string Vmstat(Kernel& kernel) {
  MemoryInfo m = ReadMemoryInfo(kernel);
  uint64_t faults = 0, major = 0;
  for (RefPtr<ThreadGroup>& g : kernel.ThreadGroups(*kernel.root_pid_ns())) {
    ResourceUsage u = g->Usage();
    faults += u.minor_faults + u.major_faults;
    major += u.major_faults;
  }
  return fmt::format(
      "nr_free_pages {}\nnr_anon_pages {}\nnr_mapped {}\nnr_file_pages {}\nnr_shmem {}\nnr_dirty 0\nnr_writeback 0\n"
      "pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault {}\npgmajfault {}\noom_kill 0\n",
      m.free / kPageSize, m.anonymous / kPageSize, m.page_cache / kPageSize, m.page_cache / kPageSize,
      m.shared / kPageSize, faults, major);
}

std::string Interrupts(int cpus) {
  std::string head = "           ", zeros;
  for (int i = 0; i < cpus; ++i) {
    head += fmt::format("{:<11}", fmt::format("CPU{}", i));
    zeros += fmt::format("{:>10} ", 0);
  }
  return head + "\nLOC: " + zeros + "  Local timer interrupts\nERR: " + fmt::format("{:>10}\n", 0);
}

}  // namespace

void AddSystemFiles(ProcFs& fs, StaticDir& root) {
  Kernel& kernel = fs.kernel();
  auto text = [&](const char* name, TextGenerator g) { root.Add(name, MakeText(fs, 0444, std::move(g))); };
  auto fixed = [&](const char* name, std::string s) { root.Add(name, MakeFixedText(fs, 0444, std::move(s))); };
  using R = Result<std::string>;

  text("meminfo", [&kernel](const VfsContext&) -> R { return Meminfo(kernel); });
  fixed("cpuinfo", CpuInfo(kernel.cpus()));
  text("stat", [&fs](const VfsContext&) -> R { return Stat(fs); });
  text("uptime", [&fs](const VfsContext&) -> R { return Uptime(fs); });
  auto load = std::make_shared<LoadAverage>();
  text("loadavg", [&fs, &kernel, load](const VfsContext&) -> R {
    int running = std::max(kernel.RunningTasks(), 1);
    std::array<double, 3> a = load->Sample(running);
    int32_t last;
    {
      MutexLock lock(kernel.tree_mutex());
      last = fs.ns().last_pid();
    }
    return fmt::format("{:.2f} {:.2f} {:.2f} {}/{} {}\n", a[0], a[1], a[2], running, kernel.task_count(), last);
  });
  fixed("version", fmt::format("{} version {} (moat@sandbox) (c++) {}\n", kSystemName, kSystemRelease, kSystemVersion));
  text("filesystems", [](const VfsContext&) -> R { return Filesystems(); });
  text("vmstat", [&kernel](const VfsContext&) -> R { return Vmstat(kernel); });
  fixed("devices",
        "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n");
  fixed("partitions", "major minor  #blocks  name\n\n");
  fixed("diskstats", "");
  fixed("cmdline", "BOOT_IMAGE=/moat ro\n");
  fixed("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
  fixed("interrupts", Interrupts(kernel.cpus()));
  fixed("modules", "");
  fixed("consoles", "");
  fixed("misc", "");
  fixed("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
  fixed("execdomains", "0-0\tLinux           \t[kernel]\n");
  root.Add("mounts", MakeFixedLink(fs, "self/mounts"));
  root.Add("net", MakeFixedLink(fs, "self/net"));
}

}  // namespace moat
