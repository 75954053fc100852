#include "runsc/oci/parse.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include "runsc/error/error.h"

namespace moat::oci {
namespace {

constexpr char kMinimal[] = R"({"ociVersion":"1.2.0","root":{"path":"rootfs"},
  "process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}}})";

std::string ErrorOf(std::string_view json) {
  std::vector<std::string> warnings;
  auto spec = ParseSpec(json, warnings);
  return spec.ok() ? "ok" : Text(spec.status());
}

// The minimal configuration with `from` replaced by `to`.
std::string With(const std::string& from, const std::string& to) {
  std::string text = kMinimal;
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(ParseTest, Minimal) {
  std::vector<std::string> warnings;
  auto spec = ParseSpec(kMinimal, warnings);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->root_path, "rootfs");
  EXPECT_EQ(spec->process->args, std::vector<std::string>{"sh"});
  EXPECT_FALSE(spec->process->capabilities.has_value());
  EXPECT_EQ(warnings, std::vector<std::string>{"linux.namespaces: none of type pid, network, mount, ipc, uts is asked "
                                               "for, the guest has its own nevertheless"});
}

TEST(ParseTest, ErrorsNameTheField) {
  EXPECT_EQ(ErrorOf(With(R"("1.2.0")", R"("2.0")")), "ociVersion: unsupported version 2.0, must be 1.x");
  EXPECT_EQ(ErrorOf(With(R"("root":{"path":"rootfs"})", R"("x":1)")), "root: is required");
  EXPECT_EQ(ErrorOf(With(R"("path":"rootfs")", R"("path":7)")), "root.path: must be a string");
  EXPECT_EQ(ErrorOf(With(R"(["sh"])", R"(["sh",3])")), "process.args[1]: must be a string");
  EXPECT_EQ(ErrorOf(With(R"(["sh"])", "[]")), "process.args: must not be empty");
  EXPECT_EQ(ErrorOf(With(R"("cwd":"/")", R"("cwd":"tmp")")), "process.cwd: must be an absolute path");
  EXPECT_EQ(ErrorOf(With(R"("uid":0)", R"("uid":-1)")), "process.user.uid: must be between 0 and 4294967294, is -1");
  EXPECT_EQ(ErrorOf(With(R"("uid":0)", R"("uid":1.5)")), "process.user.uid: must be an integer");
  EXPECT_EQ(ErrorOf(With(R"("cwd":"/")", R"("cwd":"/","rlimits":[{"type":"RLIMIT_X","hard":1,"soft":1}])")),
            "process.rlimits[0].type: unknown resource limit RLIMIT_X");
  EXPECT_EQ(ErrorOf(With(R"("cwd":"/")", R"("cwd":"/","rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":2}])")),
            "process.rlimits[0].soft: must not be above hard");
  EXPECT_EQ(ErrorOf(With(R"("root":)", R"("mounts":[{"type":"proc"}],"root":)")), "mounts[0].destination: is required");
  EXPECT_EQ(ErrorOf(With(R"("root":)", R"("linux":{"namespaces":[{"type":"foo"}]},"root":)")),
            "linux.namespaces[0].type: unknown namespace type foo");
  EXPECT_EQ(ErrorOf(With(R"("root":)", R"("hooks":{"startContainer":[{"path":"x"}]},"root":)")),
            "hooks.startContainer[0].path: must be an absolute path");
  EXPECT_EQ(ErrorOf("[]"), "the document: must be an object");
}

TEST(ParseTest, BrokenJsonSaysWhere) {
  std::string error = ErrorOf("{\"ociVersion\": ");
  EXPECT_TRUE(error.starts_with("not valid JSON: ")) << error;
  EXPECT_NE(error.find("line 1"), std::string::npos) << error;
}

TEST(ParseTest, UnimplementedIsWarnedAboutByName) {
  std::vector<std::string> warnings;
  auto spec = ParseSpec(With(R"("root":)", R"("linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},
      "resources":{"pids":{"limit":5},"devices":[]},"cgroupsPath":"/x","somethingNew":1},"root":)"),
                        warnings);
  ASSERT_TRUE(spec.ok()) << spec.status();
  std::string all;
  for (const std::string& w : warnings) all += w + "\n";
  for (const char* name : {"linux.seccomp:", "linux.resources.pids:", "linux.cgroupsPath:"})
    EXPECT_NE(all.find(name), std::string::npos) << name << " in " << all;
  EXPECT_EQ(all.find("devices"), std::string::npos);
  EXPECT_EQ(all.find("somethingNew"), std::string::npos);
}

// The shape of what Podman writes: terminal, capabilities, limits, mounts, a namespace path.
TEST(ParseTest, ManagerConfig) {
  std::vector<std::string> warnings;
  auto spec = ParseSpec(R"({
    "ociVersion": "1.0.2-dev",
    "process": {"terminal": true, "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [5, 4]},
      "args": ["sh", "-c", "id"], "env": ["TERM=xterm"], "cwd": "/srv",
      "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
      "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 10000},
                  {"type": "RLIMIT_CORE", "hard": 18446744073709551615, "soft": -1}], "oomScoreAdj": -500},
    "root": {"path": "/merged", "readonly": true}, "hostname": "h",
    "mounts": [{"destination": "/etc/hosts", "type": "bind", "source": "/x", "options": ["bind", "rprivate"]}],
    "annotations": {"io.container.manager": "libpod"},
    "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}],
      "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}],
      "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}})",
                        warnings);
  ASSERT_TRUE(spec.ok()) << spec.status();
  const Process& p = *spec->process;
  EXPECT_TRUE(p.terminal);
  EXPECT_EQ(p.user.umask, 18u);
  EXPECT_EQ(p.user.additional_gids, (std::vector<uint32_t>{5, 4}));
  EXPECT_TRUE(p.capabilities->effective.Has(CAP_CHOWN));
  EXPECT_EQ(p.rlimits[0].resource, RLIMIT_NOFILE);
  EXPECT_EQ(p.rlimits[1].soft, RLIM_INFINITY);
  EXPECT_EQ(p.oom_score_adj, -500);
  EXPECT_TRUE(spec->root_readonly);
  EXPECT_EQ(spec->mounts[0].options.size(), 2u);
  EXPECT_EQ(spec->devices[0].minor, 229);
  EXPECT_EQ(warnings.size(), 2u);  // the namespace that is not joined, and those that are not asked for
}

TEST(ParseTest, CapabilitiesThatCannotBeGranted) {
  std::vector<std::string> warnings;
  auto process = ParseProcess(
      R"({"args": ["a"], "cwd": "/", "capabilities": {"bounding": ["CAP_CHOWN", "CAP_NEWER"]}})", warnings);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(warnings, std::vector<std::string>{"capabilities.bounding[1]: unknown capability CAP_NEWER, not granted"});
  EXPECT_TRUE(process->capabilities->bounding.Has(CAP_CHOWN));
  warnings.clear();
  process = ParseProcess(R"({"args": ["a"], "cwd": "/", "capabilities": {"permitted": ["CAP_CHOWN"],
      "effective": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_CHOWN"]}})",
                         warnings);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(warnings, (std::vector<std::string>{
                          "capabilities.effective: CAP_KILL is not granted: it is not permitted",
                          "capabilities.ambient: CAP_CHOWN is not granted: it is not permitted and inheritable"}));
  EXPECT_EQ(process->capabilities->effective, CapabilitySet::None().With(CAP_CHOWN));
}

TEST(ParseTest, SchedulerAndIoPriority) {
  auto parse = [](const std::string& fields) {
    std::vector<std::string> warnings;
    return ParseProcess(R"({"args": ["a"], "cwd": "/", )" + fields + "}", warnings);
  };
  auto process = parse(R"("scheduler": {"policy": "SCHED_RR", "priority": 7, "nice": -3,
      "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5})");
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(process->scheduler->policy, SCHED_RR);
  EXPECT_EQ(process->scheduler->priority, 7);
  EXPECT_EQ(process->scheduler->nice, -3);
  EXPECT_TRUE(process->scheduler->reset_on_fork);
  EXPECT_EQ(process->io_priority, 2 << 13 | 5);
  std::vector<std::string> warnings;
  auto again = ParseProcess(ProcessJson(*process), warnings);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->scheduler->priority, 7);
  EXPECT_TRUE(again->scheduler->reset_on_fork);
  EXPECT_EQ(again->io_priority, process->io_priority);
  EXPECT_EQ(parse(R"("scheduler": {"policy": "SCHED_ISO"})").status().message(),
            "scheduler.policy: SCHED_ISO is no policy of Linux");
  EXPECT_EQ(parse(R"("scheduler": {"policy": "SCHED_FIFO"})").status().message(),
            "scheduler.priority: must be between 1 and 99 for SCHED_FIFO");
  EXPECT_EQ(parse(R"("scheduler": {"policy": "SCHED_OTHER", "nice": 20})").status().message(),
            "scheduler.nice: must be between -20 and 19, is 20");
  EXPECT_EQ(parse(R"("ioPriority": {"class": "IOPRIO_CLASS_X"})").status().message(),
            "ioPriority.class: unknown class IOPRIO_CLASS_X");
}

TEST(ParseTest, ConsoleSizeWithoutTerminalIsIgnored) {
  std::vector<std::string> warnings;
  EXPECT_TRUE(ParseProcess(R"({"args": ["a"], "cwd": "/", "consoleSize": {"height": "nonsense"}})", warnings).ok());
}

TEST(ParseTest, NamespacesThatTheGuestHasAnyway) {
  std::vector<std::string> warnings;
  auto spec = ParseSpec(With(R"("root":)", R"("linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"uts"},
      {"type":"ipc"}]},"root":)"),
                        warnings);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(warnings, std::vector<std::string>{
                          "linux.namespaces: none of type network is asked for, the guest has its own nevertheless"});
}

TEST(ParseTest, ProcessRoundTrip) {
  std::vector<std::string> warnings;
  auto first = ParseProcess(R"({"args":["a"],"cwd":"/","env":["X=\u00ff"],"user":{"uid":3,"gid":4,"additionalGids":[9]},
    "capabilities":{"ambient":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NPROC","soft":1,"hard":2}],"noNewPrivileges":true})",
                            warnings);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = ParseProcess(ProcessJson(*first), warnings);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->env, first->env);
  EXPECT_EQ(second->user.additional_gids, first->user.additional_gids);
  EXPECT_EQ(second->capabilities->ambient, first->capabilities->ambient);
  EXPECT_EQ(second->rlimits[0].hard, 2u);
  EXPECT_TRUE(second->no_new_privileges);
}

TEST(ParseTest, DefaultSpecIsValid) {
  std::vector<std::string> warnings;
  EXPECT_TRUE(ParseSpec(DefaultSpecJson(false, 0, 0), warnings).ok());
  EXPECT_TRUE(warnings.empty()) << warnings[0];
  EXPECT_TRUE(ParseSpec(DefaultSpecJson(true, 1000, 1000), warnings).ok());
}

}  // namespace
}  // namespace moat::oci
