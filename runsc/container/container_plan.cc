#include "runsc/container/container_plan.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "runsc/container/console.h"
#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"
#include "runsc/error/timestamp.h"

namespace moat {
namespace {

absl::Status CheckTerminal(const oci::Process& process, const CreateOptions& options) {
  // An attached container may use the caller's own terminal.
  if (process.terminal && options.console_socket.empty() && (options.detach || isatty(STDIN_FILENO) != 1))
    return Invalid("process.terminal: is true, but --console-socket is not given{}",
                   options.detach ? "" : " and stdin is no terminal");
  if (!process.terminal && !options.console_socket.empty())
    return Invalid("--console-socket: is given, but process.terminal is false");
  if (!options.detach && !options.console_socket.empty())
    return Invalid("--console-socket: needs --detach, an attached container uses the caller's terminal");
  return absl::OkStatus();
}

// Namespaces of the host are not joined (a warning says so), but a name that leads to something else is a mistake.
absl::Status CheckNamespacePaths(const oci::Spec& spec) {
  constexpr std::pair<std::string_view, int> kKinds[] = {
      {"pid", CLONE_NEWPID}, {"network", CLONE_NEWNET}, {"mount", CLONE_NEWNS},      {"ipc", CLONE_NEWIPC},
      {"uts", CLONE_NEWUTS}, {"user", CLONE_NEWUSER},   {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80 /* CLONE_NEWTIME */},
  };
  for (size_t i = 0; i < spec.namespaces.size(); ++i) {
    const auto& [type, path] = spec.namespaces[i];
    if (path.empty()) continue;
    ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid()) return HostFailed("config.json: linux.namespaces[{}].path: {}", i, path);
    const int kind = ioctl(fd.get(), NS_GET_NSTYPE);
    for (const auto& [name, number] : kKinds) {
      if (name == type && number != kind)
        return Invalid("config.json: linux.namespaces[{}].path: {} is no {} namespace", i, path, type);
    }
  }
  return absl::OkStatus();
}

// A new uts namespace begins with the names of the one that it is made in (uts_namespaces(7)).
void SetNames(const oci::Spec& spec, BootConfig& boot) {
  utsname host = {};
  uname(&host);
  boot.hostname = !spec.hostname.empty() ? spec.hostname : host.nodename;
  boot.domainname = !spec.domainname.empty() ? spec.domainname : host.domainname;
}

}  // namespace

ContainerRecord NewRecord(const std::string& id, const Bundle& bundle) {
  ContainerRecord record;
  record.id = id;
  record.bundle = bundle.path;
  record.rootfs = bundle.spec.root_path[0] == '/' ? bundle.spec.root_path : bundle.path + "/" + bundle.spec.root_path;
  record.created = Rfc3339Now();
  record.annotations = bundle.spec.annotations;
  record.status = "created";
  return record;
}

absl::StatusOr<LaunchPlan> MakePlan(const CreateOptions& options, const Bundle& bundle, BootConfig boot,
                                    ScopedFd& console) {
  if (!bundle.spec.process) return Invalid("config.json: process: is required");
  LaunchPlan plan;
  plan.boot = std::move(boot);
  plan.boot.process = *bundle.spec.process;
  SetNames(bundle.spec, plan.boot);
  plan.boot.masked_paths = bundle.spec.masked_paths;
  plan.boot.readonly_paths = bundle.spec.readonly_paths;
  plan.boot.devices = bundle.spec.devices;
  const oci::Hooks& hooks = bundle.spec.hooks;
  plan.boot.waits_for_hooks =
      !hooks.prestart.empty() || !hooks.create_runtime.empty() || !hooks.create_container.empty();
  plan.boot.start_hooks = hooks.start_container;
  if (!hooks.start_container.empty()) {
    ContainerRecord seen_inside = NewRecord(options.id, bundle);
    seen_inside.pid = 1;
    plan.boot.state_json = StateJson(seen_inside, "created");
  }
  RETURN_IF_ERROR(CheckTerminal(*bundle.spec.process, options));
  RETURN_IF_ERROR(CheckNamespacePaths(bundle.spec));
  std::vector<std::string> warnings;
  absl::StatusOr<MountPlan> mounts = PlanBundleMounts(bundle.spec, bundle.path, warnings);
  options.warn(warnings);
  if (!mounts.ok()) return Annotate(mounts.status(), "config.json");
  plan.boot.mounts = std::move(mounts->steps);
  // A /dev of the host's is taken as it is: no device can be made there.
  for (const MountStep& m : plan.boot.mounts)
    plan.boot.default_devices &= m.type != "host" || (m.destination != "/dev" && m.destination != "/dev/");
  plan.gofer_mounts = std::move(mounts->gofer_mounts);
  if (!options.console_socket.empty()) {
    const oci::Process& p = *bundle.spec.process;
    ASSIGN_OR_RETURN(console, OpenConsole(options.console_socket, p.console_height, p.console_width));
    for (int& fd : plan.stdio) fd = console.get();
    plan.boot.leads_session = true;
  }
  return plan;
}

}  // namespace moat
