// runsc do: one command of this host in a sandbox. The host's root is below a private layer; stdio, exit code and
// death by signal are the command's own.
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"
#include "runsc/sandbox/supervisor.h"

extern char** environ;

namespace moat {
namespace {

absl::StatusOr<uint32_t> ParseId(const std::string& text, const std::string& flag) {
  char* end = nullptr;
  errno = 0;
  unsigned long v = strtoul(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || errno != 0 || v >= UINT32_MAX)
    return Invalid("--user={}: must be UID[:GID] in numbers", flag);
  return static_cast<uint32_t>(v);
}

absl::StatusOr<oci::User> ParseUser(const std::string& flag) {
  oci::User user;
  size_t colon = flag.find(':');
  ASSIGN_OR_RETURN(user.uid, ParseId(flag.substr(0, colon), flag));
  if (colon != flag.npos) {
    ASSIGN_OR_RETURN(user.gid, ParseId(flag.substr(colon + 1), flag));
  }
  return user;
}

// The caller's environment, changed by --env NAME=VALUE (set) and --env NAME (removed).
std::vector<std::string> MakeEnvironment(const std::vector<std::string>& changes) {
  std::vector<std::string> env;
  for (char** e = environ; *e != nullptr; ++e) env.push_back(*e);
  for (const std::string& change : changes) {
    size_t equals = change.find('=');
    std::string prefix = change.substr(0, equals) + "=";
    std::erase_if(env, [&](const std::string& e) { return e.starts_with(prefix); });
    if (equals != change.npos) env.push_back(change);
  }
  return env;
}

// The caller's own limits.
std::vector<oci::Rlimit> CallerLimits() {
  std::vector<oci::Rlimit> out;
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit;
    if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0)
      out.push_back({resource, limit.rlim_cur, limit.rlim_max});
  }
  return out;
}

std::string CurrentDirectory() {
  char buffer[PATH_MAX];
  return getcwd(buffer, sizeof buffer) != nullptr && buffer[0] == '/' ? buffer : "/";
}

}  // namespace

absl::StatusOr<int> RunDo(const GlobalOptions& caller_global, std::vector<std::string> args) {
  GlobalOptions global = caller_global;
  std::string cwd, user;
  std::vector<std::string> env, volumes;
  OptionParser parser("runsc do", "Runs a command of this host in a sandbox.", "[--] COMMAND [ARGS...]");
  parser.Text("--platform", &global.platform, "how guest code runs: systrap, ptrace; without it the first that works")
      .Text("--network", &global.network, "none (loopback only)")
      .Text("--cwd", &cwd, "working directory (default: the caller's)")
      .Texts("-e,--env", &env, "NAME=VALUE sets, NAME removes a variable of the caller's environment")
      .Text("-u,--user", &user, "UID[:GID] (default 0:0, with all capabilities)")
      .Texts("-v,--volume", &volumes, "HOST-PATH:/GUEST/PATH[:ro]: a host directory or file, writable unless :ro");
  ASSIGN_OR_RETURN(oci::Process process_args, ([&]() -> absl::StatusOr<oci::Process> {
                     oci::Process p;
                     ASSIGN_OR_RETURN(p.args, parser.Parse(std::move(args), 1, -1));
                     return p;
                   }()));
  ScopedFd log;
  LaunchPlan plan;
  ASSIGN_OR_RETURN(plan.boot, MakeBootConfig(global, fmt::format("do-{}", getpid()), log));
  ASSIGN_OR_RETURN(MountPlan mounts, PlanHostMounts(volumes));
  plan.boot.mounts = std::move(mounts.steps);
  plan.gofer_mounts = std::move(mounts.gofer_mounts);

  oci::Process& process = plan.boot.process;
  process = std::move(process_args);
  process.env = MakeEnvironment(env);
  process.cwd = !cwd.empty() ? cwd : CurrentDirectory();
  if (process.cwd[0] != '/') return Invalid("--cwd={}: must be an absolute path", process.cwd);
  process.rlimits = CallerLimits();
  if (!user.empty()) {
    ASSIGN_OR_RETURN(process.user, ParseUser(user));
  }
  CapabilitySet caps = process.user.uid == 0 ? CapabilitySet::All() : CapabilitySet::None();
  process.capabilities =
      oci::Capabilities{CapabilitySet::All(), caps, CapabilitySet::None(), caps, CapabilitySet::None()};
  mode_t mask = umask(0);
  umask(mask);
  process.user.umask = mask;
  plan.boot.protected_init = false;  // it dies of a signal as it would outside
  char hostname[65] = {};
  gethostname(hostname, sizeof hostname - 1);
  plan.boot.hostname = hostname;

  ASSIGN_OR_RETURN(auto supervisor, Supervisor::Create(std::move(plan), {.listener = ScopedFd(), .job = true}));
  RETURN_IF_ERROR(supervisor->WaitReady());
  RETURN_IF_ERROR(supervisor->Start());
  int status = supervisor->Run();
  supervisor.reset();
  EndLike(status);
}

}  // namespace moat
