#include "runsc/oci/parse.h"

#include <fmt/core.h>
#include <limits.h>

#include <nlohmann/json.hpp>
#include <set>

#include "runsc/oci/json_reader.h"
#include "runsc/oci/process_reader.h"

namespace moat::oci {
namespace {

using nlohmann::json;

void ReadMounts(JsonReader& root, std::vector<Mount>& out) {
  root.EachObject("mounts", [&](JsonReader& m) {
    Mount mount{m.RequiredString("destination"), m.String("type"), m.String("source"), m.Strings("options")};
    if (!mount.destination.empty() && mount.destination[0] != '/')
      m.Warn("destination", "a relative path is deprecated, it is taken from /");
    for (const char* key : {"uidMappings", "gidMappings"})
      m.EachObject(key, [&](JsonReader&) { m.Fail(key, "id-mapped mounts are not implemented"); });
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
  // A sandbox has a kernel of its own: nothing of the runtime's namespaces can be inherited.
  std::string own;
  for (const char* type : {"pid", "network", "mount", "ipc", "uts"}) {
    if (!seen.contains(type)) own += (own.empty() ? "" : ", ") + std::string(type);
  }
  if (!own.empty())
    linux_object.Warn("namespaces",
                      fmt::format("none of type {} is asked for, the guest has its own nevertheless", own));
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
  for (const char* key : {"seccomp", "sysctl", "mountLabel", "timeOffsets", "netDevices", "intelRdt", "memoryPolicy"}) {
    if (l.Has(key)) l.Warn(key, kIgnored);
  }
  if (!spec.cgroups_path.empty()) l.Warn("cgroupsPath", kIgnored);
  spec.root_propagation = l.String("rootfsPropagation");
  static const std::set<std::string> kPropagations = {"",        "shared",   "rshared",    "slave",      "rslave",
                                                      "private", "rprivate", "unbindable", "runbindable"};
  if (!kPropagations.contains(spec.root_propagation))
    l.Fail("rootfsPropagation", fmt::format("unknown propagation {}", spec.root_propagation));
  // Linux programs of the machine's own word size are what guests are anyway.
  JsonReader personality = l.Object("personality");
  if (personality.present() && personality.RequiredString("domain") != "LINUX") personality.Warn("domain", kIgnored);
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
  if (spec.annotations.contains("")) root.Fail("annotations", "a key must not be empty");
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
