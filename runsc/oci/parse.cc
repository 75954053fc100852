#include "runsc/oci/parse.h"

#include <fmt/core.h>
#include <limits.h>

#include <nlohmann/json.hpp>
#include <set>

#include "runsc/oci/json_reader.h"

namespace moat::oci {
namespace {

using nlohmann::json;

constexpr int64_t kMaxId = 4294967294;
constexpr std::string_view kIgnored = "not implemented by this version, ignored";

CapabilitySet ReadCapabilities(JsonReader& caps, std::string_view key) {
  CapabilitySet set;
  std::vector<std::string> names = caps.Strings(key);
  for (size_t i = 0; i < names.size(); ++i) {
    int number = CapabilityNumber(names[i]);
    // Stricter than the specification, which lets a runtime warn: a program that silently misses what its
    // configuration grants fails later, and far from the reason.
    if (number < 0) {
      caps.Fail(fmt::format("{}[{}]", key, i), fmt::format("unknown capability {}", names[i]));
    } else {
      set = set.With(number);
    }
  }
  return set;
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

Process ReadProcess(JsonReader p) {
  Process out;
  out.terminal = p.Bool("terminal");
  JsonReader size = p.Object("consoleSize");
  out.console_height = static_cast<uint32_t>(size.Int("height", 0, USHRT_MAX));
  out.console_width = static_cast<uint32_t>(size.Int("width", 0, USHRT_MAX));
  ReadUser(p.Object("user"), out.user);
  out.args = p.Strings("args");
  if (p.present() && out.args.empty()) p.Fail("args", p.Has("args") ? "must not be empty" : "is required");
  if (!out.args.empty() && out.args[0].empty()) p.Fail("args[0]", "must not be empty");
  out.env = p.Strings("env");
  out.cwd = p.RequiredString("cwd");
  if (!out.cwd.empty() && out.cwd[0] != '/') p.Fail("cwd", "must be an absolute path");
  if (p.Has("capabilities")) {
    JsonReader caps = p.Object("capabilities");
    out.capabilities = Capabilities{ReadCapabilities(caps, "bounding"), ReadCapabilities(caps, "effective"),
                                    ReadCapabilities(caps, "inheritable"), ReadCapabilities(caps, "permitted"),
                                    ReadCapabilities(caps, "ambient")};
  }
  ReadRlimits(p, out.rlimits);
  out.no_new_privileges = p.Bool("noNewPrivileges");
  if (auto adj = p.OptionalInt("oomScoreAdj", -1000, 1000)) out.oom_score_adj = static_cast<int>(*adj);
  if (!p.String("apparmorProfile").empty()) p.Warn("apparmorProfile", kIgnored);
  if (!p.String("selinuxLabel").empty()) p.Warn("selinuxLabel", kIgnored);
  for (const char* key : {"scheduler", "ioPriority", "execCPUAffinity"}) {
    if (p.Has(key)) p.Warn(key, kIgnored);
  }
  if (p.Has("commandLine")) p.Fail("commandLine", "is for Windows containers only");
  return out;
}

void ReadMounts(JsonReader& root, std::vector<Mount>& out) {
  root.EachObject("mounts", [&](JsonReader& m) {
    Mount mount{m.RequiredString("destination"), m.String("type"), m.String("source"), m.Strings("options")};
    if (m.Has("uidMappings") || m.Has("gidMappings")) m.Fail("uidMappings", "id-mapped mounts are not implemented");
    out.push_back(std::move(mount));
  });
}

std::vector<Hook> ReadHooks(JsonReader& hooks, std::string_view key) {
  std::vector<Hook> out;
  hooks.EachObject(key, [&](JsonReader& h) {
    Hook hook{h.RequiredString("path"), h.Strings("args"), h.Strings("env"), std::nullopt};
    if (!hook.path.empty() && hook.path[0] != '/') h.Fail("path", "must be an absolute path");
    if (auto t = h.OptionalInt("timeout", 1, INT_MAX)) hook.timeout_seconds = static_cast<int>(*t);
    out.push_back(std::move(hook));
  });
  return out;
}

void ReadNamespaces(JsonReader& linux_object, Spec& spec) {
  static const std::set<std::string> kTypes = {"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"};
  std::set<std::string> seen;
  linux_object.EachObject("namespaces", [&](JsonReader& n) {
    Namespace ns{n.RequiredString("type"), n.String("path")};
    if (!kTypes.contains(ns.type)) n.Fail("type", fmt::format("unknown namespace type {}", ns.type));
    if (!seen.insert(ns.type).second) n.Fail("type", fmt::format("{} is given twice", ns.type));
    if (!ns.path.empty()) {
      if (ns.path[0] != '/') n.Fail("path", "must be an absolute path");
      n.Warn("path", fmt::format("joining a {} namespace is not implemented, the guest gets one of its own", ns.type));
    }
    spec.namespaces.push_back(std::move(ns));
  });
}

void ReadDevices(JsonReader& linux_object, Spec& spec) {
  linux_object.EachObject("devices", [&](JsonReader& d) {
    Device device;
    device.path = d.RequiredString("path");
    device.type = d.RequiredString("type");
    device.major = d.Int("major", 0, UINT32_MAX);
    device.minor = d.Int("minor", 0, UINT32_MAX);
    if (auto v = d.OptionalInt("fileMode", 0, 0177777)) device.file_mode = static_cast<uint32_t>(*v);
    if (auto v = d.OptionalInt("uid", 0, kMaxId)) device.uid = static_cast<uint32_t>(*v);
    if (auto v = d.OptionalInt("gid", 0, kMaxId)) device.gid = static_cast<uint32_t>(*v);
    if (!device.path.empty() && device.path[0] != '/') d.Fail("path", "must be an absolute path");
    if (device.type != "c" && device.type != "u" && device.type != "b" && device.type != "p")
      d.Fail("type", "must be one of c, u, b, p");
    spec.devices.push_back(std::move(device));
  });
}

std::vector<std::string> ReadAbsolutePaths(JsonReader& object, std::string_view key) {
  std::vector<std::string> paths = object.Strings(key);
  for (size_t i = 0; i < paths.size(); ++i) {
    if (paths[i].empty() || paths[i][0] != '/') object.Fail(fmt::format("{}[{}]", key, i), "must be an absolute path");
  }
  return paths;
}

void ReadLinux(JsonReader l, Spec& spec) {
  ReadNamespaces(l, spec);
  ReadDevices(l, spec);
  spec.sysctl = l.StringMap("sysctl");
  spec.masked_paths = ReadAbsolutePaths(l, "maskedPaths");
  spec.readonly_paths = ReadAbsolutePaths(l, "readonlyPaths");
  spec.cgroups_path = l.String("cgroupsPath");
  JsonReader resources = l.Object("resources");
  for (const std::string& key : resources.Keys()) {
    // The sandbox's /dev holds only devices of our own making, whatever a device cgroup would say.
    if (key != "devices") resources.Warn(key, kIgnored);
  }
  for (const char* key :
       {"seccomp", "sysctl", "mountLabel", "personality", "timeOffsets", "netDevices", "intelRdt", "memoryPolicy"}) {
    if (l.Has(key)) l.Warn(key, kIgnored);
  }
  if (!spec.cgroups_path.empty()) l.Warn("cgroupsPath", kIgnored);
  std::string propagation = l.String("rootfsPropagation");
  if (!propagation.empty() && propagation.find("private") == propagation.npos &&
      propagation.find("slave") == propagation.npos)
    l.Warn("rootfsPropagation", fmt::format("{} is {}", propagation, kIgnored));
  for (const char* key : {"uidMappings", "gidMappings"}) {
    if (l.Has(key))
      l.Warn(key, "the guest's own user namespaces have maps; this one is ignored: ids are the sandbox's");
  }
}

absl::Status ParseText(std::string_view text, json& out) {
  out = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!out.is_discarded()) return absl::OkStatus();
  // The parser's own message says where; exceptions stay inside this function.
  try {
    [[maybe_unused]] json again = json::parse(text.begin(), text.end());
  } catch (const json::parse_error& e) {
    std::string_view what = e.what();
    size_t at = what.find("] ");
    return absl::InvalidArgumentError(fmt::format("not valid JSON: {}", at == what.npos ? what : what.substr(at + 2)));
  }
  return absl::InvalidArgumentError("not valid JSON");
}

}  // namespace

absl::StatusOr<Spec> ParseSpec(std::string_view text, std::vector<std::string>& warnings) {
  json document;
  if (absl::Status s = ParseText(text, document); !s.ok()) return s;
  JsonReport report;
  JsonReader root(&document, "", report);
  Spec spec;
  spec.oci_version = root.RequiredString("ociVersion");
  if (!spec.oci_version.empty() && !spec.oci_version.starts_with("1."))
    root.Fail("ociVersion", fmt::format("unsupported version {}, must be 1.x", spec.oci_version));
  JsonReader rootfs = root.Object("root");
  if (!rootfs.present()) root.Fail("root", "is required");
  spec.root_path = rootfs.RequiredString("path");
  spec.root_readonly = rootfs.Bool("readonly");
  spec.hostname = root.String("hostname");
  spec.domainname = root.String("domainname");
  if (spec.hostname.size() > 64) root.Fail("hostname", "must not be longer than 64 bytes");
  if (spec.domainname.size() > 64) root.Fail("domainname", "must not be longer than 64 bytes");
  if (root.Has("process")) spec.process = ReadProcess(root.Object("process"));
  ReadMounts(root, spec.mounts);
  JsonReader hooks = root.Object("hooks");
  spec.hooks =
      Hooks{ReadHooks(hooks, "prestart"),       ReadHooks(hooks, "createRuntime"), ReadHooks(hooks, "createContainer"),
            ReadHooks(hooks, "startContainer"), ReadHooks(hooks, "poststart"),     ReadHooks(hooks, "poststop")};
  spec.annotations = root.StringMap("annotations");
  for (const char* key : {"windows", "solaris", "vm", "zos", "freebsd"}) {
    if (root.Has(key)) root.Warn(key, "is for another platform, ignored");
  }
  ReadLinux(root.Object("linux"), spec);
  warnings.insert(warnings.end(), report.warnings.begin(), report.warnings.end());
  if (!report.status.ok()) return report.status;
  return spec;
}

absl::StatusOr<Process> ParseProcess(std::string_view text, std::vector<std::string>& warnings) {
  json document;
  if (absl::Status s = ParseText(text, document); !s.ok()) return s;
  JsonReport report;
  Process process = ReadProcess(JsonReader(&document, "", report));
  warnings.insert(warnings.end(), report.warnings.begin(), report.warnings.end());
  if (!report.status.ok()) return report.status;
  return process;
}

}  // namespace moat::oci
