#include "runsc/container/mount_plan.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>

#include "runsc/error/error.h"

namespace moat {
namespace {

// The guest's own file systems that a bundle may ask for.
constexpr std::string_view kOwnTypes[] = {"tmpfs", "proc", "sysfs", "devpts", "mqueue", "devtmpfs"};

// Opens a host place for the gofer and notes it in the step.
absl::Status ServeFromHost(MountPlan& plan, MountStep& step, const std::string& path, bool read_only) {
  GoferMount mount;
  mount.root.Reset(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!mount.root.valid()) return HostFailed("{}: {}", step.field, path);
  struct stat st;
  if (fstat(mount.root.get(), &st) != 0) return HostFailed("{}: stat {}", step.field, path);
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return Invalid("{}: {}: only directories and regular files of the host can be mounted", step.field, path);
  step.type = "host";
  step.host_is_directory = S_ISDIR(st.st_mode);
  step.gofer_index = static_cast<int>(plan.gofer_mounts.size());
  mount.read_only = read_only;
  plan.gofer_mounts.push_back(std::move(mount));
  return absl::OkStatus();
}

std::string Absolute(const std::string& path, const std::string& base) {
  return !path.empty() && path[0] == '/' ? path : base + "/" + path;
}

void AddOwn(MountPlan& plan, const char* destination, const char* type, const char* data, uint64_t flags) {
  MountStep step;
  step.destination = destination;
  step.type = step.source = type;
  step.data = data;
  step.flags = flags;
  step.field = destination;
  plan.steps.push_back(std::move(step));
}

}  // namespace

absl::StatusOr<MountPlan> PlanBundleMounts(const oci::Spec& spec, const std::string& bundle,
                                           std::vector<std::string>& warnings) {
  MountPlan plan;
  MountStep root;
  root.destination = "/";
  root.source = "rootfs";
  root.field = "root.path";
  root.flags = spec.root_readonly ? MS_RDONLY : 0;
  if (!spec.root_propagation.empty()) {
    ASSIGN_OR_RETURN(MountOptions propagation, ParseMountOptions({spec.root_propagation}));
    root.propagation = propagation.propagation;
  }
  std::string path = Absolute(spec.root_path, bundle);
  // Missing mount points are made below the root, so the gofer may write even when the guest must not.
  RETURN_IF_ERROR(ServeFromHost(plan, root, path, false));
  if (!root.host_is_directory) return Invalid("root.path: {}: not a directory", path);
  plan.steps.push_back(std::move(root));

  // The default devices need a file system that may hold them; the gofer makes no device on the host.
  auto is_dev = [](const oci::Mount& m) { return m.destination == "/dev" || m.destination == "/dev/"; };
  if (std::none_of(spec.mounts.begin(), spec.mounts.end(), is_dev))
    AddOwn(plan, "/dev", "tmpfs", "mode=755,size=65536k", MS_NOSUID);

  for (size_t i = 0; i < spec.mounts.size(); ++i) {
    const oci::Mount& m = spec.mounts[i];
    MountStep step;
    step.field = fmt::format("mounts[{}]", i);
    step.destination = Absolute(m.destination, "");
    absl::StatusOr<MountOptions> options = ParseMountOptions(m.options);
    if (!options.ok()) return Annotate(options.status(), step.field + ".options");
    for (const std::string& o : options->ignored)
      warnings.push_back(fmt::format("{}.options: {} has no effect", step.field, o));
    step.flags = options->flags;
    step.propagation = options->propagation;
    step.source = m.source;
    if (options->remount) {
      step.remount = true;
      step.bind_remount = options->bind;
      step.data = options->data;
    } else if (options->bind || m.type == "bind") {
      if (!options->data.empty())
        warnings.push_back(fmt::format("{}.options: {} has no effect on a bind mount", step.field, options->data));
      if (m.source.empty()) return Invalid("{}.source: is required for a bind mount", step.field);
      step.field += ".source";
      step.shared_with_host = true;
      RETURN_IF_ERROR(ServeFromHost(plan, step, Absolute(m.source, bundle), (options->flags & MS_RDONLY) != 0));
    } else if (m.type == "cgroup" || m.type == "cgroup2") {
      warnings.push_back(
          fmt::format("{}.type: {} is not implemented by this version, not mounted", step.field, m.type));
      continue;
    } else if (std::find(std::begin(kOwnTypes), std::end(kOwnTypes), m.type) != std::end(kOwnTypes)) {
      step.type = m.type;
      step.data = options->data;
    } else {
      return Invalid("{}.type: \"{}\" is not supported (bind, tmpfs, proc, sysfs, devpts, mqueue, cgroup)", step.field,
                     m.type);
    }
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

absl::StatusOr<MountPlan> PlanHostMounts(const std::vector<std::string>& volumes) {
  MountPlan plan;
  MountStep root;
  root.destination = "/";
  root.source = "rootfs";
  root.field = "the host's root";
  root.overlay = true;
  RETURN_IF_ERROR(ServeFromHost(plan, root, "/", true));
  plan.steps.push_back(std::move(root));
  constexpr uint64_t kNoNothing = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  AddOwn(plan, "/proc", "proc", "", kNoNothing);
  AddOwn(plan, "/dev", "tmpfs", "mode=755,size=65536k", MS_NOSUID);
  AddOwn(plan, "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC);
  AddOwn(plan, "/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV);
  AddOwn(plan, "/dev/mqueue", "mqueue", "", kNoNothing);
  AddOwn(plan, "/sys", "sysfs", "", kNoNothing | MS_RDONLY);
  AddOwn(plan, "/tmp", "tmpfs", "mode=1777", MS_NODEV);
  for (const std::string& volume : volumes) {
    size_t first = volume.find(':');
    size_t second = first == volume.npos ? volume.npos : volume.find(':', first + 1);
    std::string host = volume.substr(0, first);
    std::string guest = first == volume.npos ? "" : volume.substr(first + 1, second - first - 1);
    std::string mode = second == volume.npos ? "rw" : volume.substr(second + 1);
    if (host.empty() || guest.empty() || guest[0] != '/' || (mode != "ro" && mode != "rw"))
      return Invalid("--volume={}: must be HOST-PATH:/GUEST/PATH[:ro|:rw]", volume);
    MountStep step;
    step.field = "--volume=" + volume;
    step.destination = guest;
    step.source = host;
    step.flags = mode == "ro" ? MS_RDONLY : 0;
    step.shared_with_host = true;
    RETURN_IF_ERROR(ServeFromHost(plan, step, host, mode == "ro"));
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

}  // namespace moat
