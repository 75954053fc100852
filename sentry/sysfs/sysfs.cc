#include "sentry/sysfs/sysfs.h"

#include <fmt/format.h>
#include <linux/magic.h>

#include "fs/pseudofs/text_file.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/system_info.h"

namespace moat {
namespace {

RefPtr<Inode> Fixed(PseudoFs& fs, std::string text) { return MakeFixedText(fs, 0444, std::move(text)); }

// "0-3\n", or "0\n" for one.
std::string CpuList(int cpus) { return cpus == 1 ? "0\n" : fmt::format("0-{}\n", cpus - 1); }

// The mask of one CPU or of all of them, in words of 32 bits, highest first.
std::string CpuMask(int cpus, int only) {
  std::string s;
  for (int w = (cpus + 31) / 32 - 1; w >= 0; --w) {
    uint32_t bits = 0;
    for (int b = 0; b < 32 && w * 32 + b < cpus; ++b) {
      if (only < 0 || only == w * 32 + b) bits |= 1u << b;
    }
    s += fmt::format("{:08x}{}", bits, w == 0 ? "\n" : ",");
  }
  return s;
}

// All memory is one node's.
std::string NodeMeminfo(Kernel& kernel) {
  const MemoryInfo m = ReadMemoryInfo(kernel);
  std::string s;
  auto line = [&](const char* name, uint64_t bytes) {
    s += fmt::format("Node 0 {:<15}{:8} kB\n", std::string(name) + ":", bytes >> 10);
  };
  line("MemTotal", m.total);
  line("MemFree", m.free);
  line("MemUsed", m.total - std::min(m.total, m.free));
  line("Active", m.anonymous + m.page_cache);
  line("Inactive", 0);
  line("FilePages", m.page_cache);
  line("AnonPages", m.anonymous);
  line("Shmem", m.shared);
  return s + "Node 0 HugePages_Total:     0\nNode 0 HugePages_Free:      0\nNode 0 HugePages_Surp:      0\n";
}

void AddCpus(PseudoFs& fs, StaticDir& devices, Kernel& kernel) {
  const int cpus = kernel.cpus();
  StaticDir& system = devices.Sub("system");
  StaticDir& cpu = system.Sub("cpu");
  cpu.Add("online", Fixed(fs, CpuList(cpus)));
  cpu.Add("possible", Fixed(fs, CpuList(cpus)));
  cpu.Add("present", Fixed(fs, CpuList(cpus)));
  cpu.Add("offline", Fixed(fs, "\n"));
  cpu.Add("isolated", Fixed(fs, "\n"));
  cpu.Add("kernel_max", Fixed(fs, fmt::format("{}\n", cpus - 1)));
  for (int i = 0; i < cpus; ++i) {
    StaticDir& one = cpu.Sub(fmt::format("cpu{}", i));
    StaticDir& topology = one.Sub("topology");
    topology.Add("core_id", Fixed(fs, fmt::format("{}\n", i)));
    topology.Add("physical_package_id", Fixed(fs, "0\n"));
    topology.Add("die_id", Fixed(fs, "0\n"));
    topology.Add("core_siblings", Fixed(fs, CpuMask(cpus, -1)));
    topology.Add("core_siblings_list", Fixed(fs, CpuList(cpus)));
    topology.Add("package_cpus_list", Fixed(fs, CpuList(cpus)));
    topology.Add("thread_siblings", Fixed(fs, CpuMask(cpus, i)));
    topology.Add("thread_siblings_list", Fixed(fs, fmt::format("{}\n", i)));
    topology.Add("core_cpus_list", Fixed(fs, fmt::format("{}\n", i)));
  }
  // One memory node, as the affinity calls say.
  StaticDir& node = system.Sub("node");
  node.Add("online", Fixed(fs, "0\n"));
  node.Add("possible", Fixed(fs, "0\n"));
  node.Add("has_cpu", Fixed(fs, "0\n"));
  node.Add("has_memory", Fixed(fs, "0\n"));
  StaticDir& node0 = node.Sub("node0");
  node0.Add("cpulist", Fixed(fs, CpuList(cpus)));
  node0.Add("cpumap", Fixed(fs, CpuMask(cpus, -1)));
  node0.Add("distance", Fixed(fs, "10\n"));
  node0.Add("meminfo",
            MakeText(fs, 0444, [&kernel](const VfsContext&) -> Result<std::string> { return NodeMeminfo(kernel); }));
}

void AddKernelCorner(PseudoFs& fs, StaticDir& kernel) {
  kernel.Sub("mm").Sub("transparent_hugepage").Add("enabled", Fixed(fs, "always madvise [never]\n"));
  kernel.Sub("mm").Sub("transparent_hugepage").Add("hpage_pmd_size", Fixed(fs, "2097152\n"));
  kernel.Sub("mm")
      .Sub("transparent_hugepage")
      .Add("shmem_enabled", Fixed(fs, "always within_size advise [never] deny force\n"));
  kernel.Sub("mm").Sub("hugepages");
  kernel.Add("uevent_seqnum", Fixed(fs, "0\n"));
  kernel.Sub("security");  // mount point of securityfs
  kernel.Sub("debug");
  kernel.Sub("tracing");
  kernel.Sub("config");
}

RefPtr<PseudoFs> MakeSysfs(Kernel& kernel) {
  RefPtr<PseudoFs> fs = MakeRef<PseudoFs>("sysfs", uint64_t{SYSFS_MAGIC}, true);
  RefPtr<StaticDir> root = MakeRef<StaticDir>(*fs, 0755u);
  AddCpus(*fs, root->Sub("devices"), kernel);
  root->Sub("devices").Sub("virtual");
  AddKernelCorner(*fs, root->Sub("kernel"));
  root->Sub("fs").Sub("cgroup");
  root->Sub("class").Sub("net");
  root->Sub("class").Sub("tty");
  root->Sub("block");
  root->Sub("bus");
  root->Sub("dev").Sub("block");
  root->Sub("dev").Sub("char");
  root->Sub("firmware");
  root->Sub("module");
  root->Sub("power");
  fs->SetRoot(root);
  return fs;
}

// The root group of the unified hierarchy, without controllers: every process is in it and stays in it.
RefPtr<PseudoFs> MakeCgroup2(Kernel& kernel) {
  RefPtr<PseudoFs> fs = MakeRef<PseudoFs>("cgroup2", uint64_t{CGROUP2_SUPER_MAGIC}, true);
  RefPtr<StaticDir> root = MakeRef<StaticDir>(*fs, 0555u);
  root->Add("cgroup.controllers", Fixed(*fs, "\n"));
  root->Add("cgroup.subtree_control", Fixed(*fs, "\n"));
  root->Add("cgroup.max.depth", Fixed(*fs, "max\n"));
  root->Add("cgroup.max.descendants", Fixed(*fs, "max\n"));
  root->Add("cgroup.stat", Fixed(*fs, "nr_descendants 0\nnr_dying_descendants 0\n"));
  root->Add("cgroup.procs", MakeText(*fs, 0444, [&kernel](const VfsContext& ctx) -> Result<std::string> {
              auto* caller = static_cast<Task*>(ctx.task);
              RefPtr<PidNamespace> ns = caller != nullptr ? caller->pid_ns() : kernel.root_pid_ns();
              std::string s;
              for (RefPtr<ThreadGroup>& g : kernel.ThreadGroups(*ns)) s += fmt::format("{}\n", g->IdIn(*ns));
              return s;
            }));
  fs->SetRoot(root);
  return fs;
}

class GeneratedType final : public FileSystemType {
 public:
  using Make = RefPtr<PseudoFs> (*)(Kernel& kernel);
  GeneratedType(std::string_view name, Kernel& kernel, Make make) : name_(name), kernel_(kernel), make_(make) {}
  std::string_view name() const override { return name_; }
  bool mountable_in_user_ns() const override { return true; }
  Result<RefPtr<FileSystem>> Mount(const VfsContext&, const MountRequest&) override {
    return RefPtr<FileSystem>(make_(kernel_));
  }

 private:
  const std::string_view name_;
  Kernel& kernel_;
  const Make make_;
};

}  // namespace

void RegisterSysfs(Kernel& kernel) {
  // Types live for ever, as the registry asks.
  vfs::RegisterFileSystemType(*new GeneratedType("sysfs", kernel, MakeSysfs));
  vfs::RegisterFileSystemType(*new GeneratedType("cgroup2", kernel, MakeCgroup2));
}

}  // namespace moat
