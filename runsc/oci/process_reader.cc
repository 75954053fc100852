#include "runsc/oci/process_reader.h"

#include <fmt/core.h>
#include <limits.h>
#include <sched.h>

#include <set>

#include "runsc/oci/names.h"
#include "runsc/oci/parse.h"

namespace moat::oci {
namespace {

CapabilitySet ReadCapabilities(JsonReader& caps, std::string_view key) {
  CapabilitySet set;
  std::vector<std::string> names = caps.Strings(key);
  for (size_t i = 0; i < names.size(); ++i) {
    int number = CapabilityNumber(names[i]);
    if (number < 0) {
      caps.Warn(fmt::format("{}[{}]", key, i), fmt::format("unknown capability {}, not granted", names[i]));
    } else {
      set = set.With(number);
    }
  }
  return set;
}

// A set is a part of `limit` in the kernel, whatever is asked for.
CapabilitySet Within(JsonReader& caps, std::string_view key, CapabilitySet set, CapabilitySet limit, const char* why) {
  for (int cap = 0; cap <= CAP_LAST_CAP; ++cap) {
    if (set.Has(cap) && !limit.Has(cap))
      caps.Warn(key, fmt::format("{} is not granted: it is not {}", CapabilityName(cap), why));
  }
  return set & limit;
}

Capabilities ReadAllCapabilities(JsonReader caps) {
  Capabilities c{ReadCapabilities(caps, "bounding"), ReadCapabilities(caps, "effective"),
                 ReadCapabilities(caps, "inheritable"), ReadCapabilities(caps, "permitted"),
                 ReadCapabilities(caps, "ambient")};
  // capabilities(7), "Thread capability sets".
  c.effective = Within(caps, "effective", c.effective, c.permitted, "permitted");
  c.ambient = Within(caps, "ambient", c.ambient, c.permitted & c.inheritable, "permitted and inheritable");
  return c;
}

void ReadUser(JsonReader user, User& out) {
  out.uid = static_cast<uint32_t>(user.Int("uid", 0, kMaxId));
  out.gid = static_cast<uint32_t>(user.Int("gid", 0, kMaxId));
  if (auto umask = user.OptionalInt("umask", 0, 0777)) out.umask = static_cast<uint32_t>(*umask);
  out.additional_gids = user.Ids("additionalGids");
}

void ReadRlimits(JsonReader& process, std::vector<Rlimit>& out) {
  std::set<int> seen;
  process.EachObject("rlimits", [&](JsonReader& r) {
    std::string type = r.RequiredString("type");
    Rlimit limit{RlimitNumber(type), r.RequiredUint64("soft"), r.RequiredUint64("hard")};
    if (limit.resource < 0) r.Fail("type", fmt::format("unknown resource limit {}", type));
    if (limit.soft > limit.hard) r.Fail("soft", "must not be above hard");
    if (!seen.insert(limit.resource).second) r.Fail("type", fmt::format("{} is given twice", type));
    out.push_back(limit);
  });
}

// sched(7), sched_setattr(2): what the kernel would refuse is an error here.
Scheduler ReadScheduler(JsonReader s) {
  Scheduler out;
  std::string policy = s.RequiredString("policy");
  out.policy = SchedulerPolicyNumber(policy);
  if (!policy.empty() && out.policy < 0) s.Fail("policy", fmt::format("{} is no policy of Linux", policy));
  out.nice = static_cast<int>(s.Int("nice", -20, 19));
  const bool realtime = out.policy == SCHED_FIFO || out.policy == SCHED_RR;
  out.priority = static_cast<int>(s.Int("priority", INT_MIN, INT_MAX));
  if (realtime ? out.priority < 1 || out.priority > 99 : out.priority != 0)
    s.Fail("priority", fmt::format("must be {} for {}", realtime ? "between 1 and 99" : "0", policy));
  out.runtime = static_cast<uint64_t>(s.Int("runtime", 0, INT64_MAX));
  out.deadline = static_cast<uint64_t>(s.Int("deadline", 0, INT64_MAX));
  out.period = static_cast<uint64_t>(s.Int("period", 0, INT64_MAX));
  constexpr int kDeadline = 6;  // SCHED_DEADLINE
  if (out.policy == kDeadline &&
      (out.runtime == 0 || out.runtime > out.deadline || (out.period != 0 && out.deadline > out.period)))
    s.Fail("runtime", "must be above 0, and not above deadline, nor that above period");
  for (const std::string& flag : s.Strings("flags")) {
    if (flag == "SCHED_FLAG_RESET_ON_FORK") {
      out.reset_on_fork = true;
    } else if (flag.starts_with("SCHED_FLAG_")) {
      s.Warn("flags", fmt::format("{} is {}", flag, kIgnored));
    } else {
      s.Fail("flags", fmt::format("unknown flag {}", flag));
    }
  }
  return out;
}

// ioprio_set(2)'s value.
int ReadIoPriority(JsonReader io) {
  constexpr std::string_view kClasses[] = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"};
  std::string name = io.RequiredString("class");
  int number = 0;
  for (size_t i = 0; i < std::size(kClasses); ++i) {
    if (name == kClasses[i]) number = static_cast<int>(i) + 1;
  }
  if (!name.empty() && number == 0) io.Fail("class", fmt::format("unknown class {}", name));
  int64_t level = io.Int("priority", 0, 7);
  return number << 13 | static_cast<int>(number == 3 ? 0 : level);
}

}  // namespace

Process ReadProcess(JsonReader p) {
  Process out;
  out.terminal = p.Bool("terminal");
  if (out.terminal) {
    JsonReader size = p.Object("consoleSize");
    out.console_height = static_cast<uint32_t>(size.Int("height", 0, USHRT_MAX));
    out.console_width = static_cast<uint32_t>(size.Int("width", 0, USHRT_MAX));
  }
  ReadUser(p.Object("user"), out.user);
  out.args = p.Strings("args");
  if (p.present() && out.args.empty()) p.Fail("args", p.Has("args") ? "must not be empty" : "is required");
  if (!out.args.empty() && out.args[0].empty()) p.Fail("args[0]", "must not be empty");
  out.env = p.Strings("env");
  out.cwd = p.RequiredString("cwd");
  if (!out.cwd.empty() && out.cwd[0] != '/') p.Fail("cwd", "must be an absolute path");
  if (p.Has("capabilities")) out.capabilities = ReadAllCapabilities(p.Object("capabilities"));
  ReadRlimits(p, out.rlimits);
  out.no_new_privileges = p.Bool("noNewPrivileges");
  if (auto adj = p.OptionalInt("oomScoreAdj", -1000, 1000)) out.oom_score_adj = static_cast<int>(*adj);
  if (p.Has("scheduler")) out.scheduler = ReadScheduler(p.Object("scheduler"));
  if (p.Has("ioPriority")) out.io_priority = ReadIoPriority(p.Object("ioPriority"));
  for (const char* key : {"apparmorProfile", "selinuxLabel"}) {
    if (!p.String(key).empty()) p.Warn(key, kIgnored);
  }
  if (p.Has("execCPUAffinity")) p.Warn("execCPUAffinity", kIgnored);
  if (p.Has("commandLine")) p.Fail("commandLine", "is for Windows containers only");
  return out;
}

}  // namespace moat::oci
