// Mutated config.json and process.json documents: the parser answers a value or an error that says something, and
// what it accepts it writes and reads back.
#include <gtest/gtest.h>

#include "runsc/oci/parse.h"
#include "tests/fuzz/mutate.h"

namespace moat::oci {
namespace {

constexpr int kRounds = 20'000;

std::string RichConfig() {
  return R"({"ociVersion":"1.2.0","process":{"terminal":false,"user":{"uid":0,"gid":0,"umask":18,"additionalGids":[5,6]},
"args":["/bin/sh","-c","true"],"env":["PATH=/bin","A=b"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"],
"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],
"noNewPrivileges":true,"oomScoreAdj":10},"root":{"path":"rootfs","readonly":true},"hostname":"h",
"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/tmp","type":"tmpfs","source":"tmpfs",
"options":["nosuid","size=65536k","mode=1777"]}],"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},
{"type":"network","path":"/proc/1/ns/net"}],"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],
"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"resources":{"memory":{"limit":1000000}}},
"annotations":{"a":"b"},"hooks":{"poststop":[{"path":"/bin/true","args":["true"],"timeout":5}]}})";
}

TEST(OciParseFuzz, MutatedConfig) {
  std::mt19937_64 random(1);
  const std::string samples[] = {RichConfig(), DefaultSpecJson(false, 0, 0), DefaultSpecJson(true, 1000, 1000)};
  int accepted = 0;
  for (int i = 0; i < kRounds; ++i) {
    std::vector<std::string> warnings;
    const auto spec = ParseSpec(Mutate(samples[i % 3], random), warnings);
    if (spec.ok()) {
      ++accepted;
    } else {
      ASSERT_FALSE(spec.status().message().empty());
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, kRounds);
}

TEST(OciParseFuzz, AcceptedProcessReadsBack) {
  std::mt19937_64 random(2);
  const std::string sample =
      R"({"args":["a","b"],"cwd":"/x","env":["A=b"],"user":{"uid":1,"gid":2,"additionalGids":[3]},
"terminal":true,"consoleSize":{"height":25,"width":80},"noNewPrivileges":true})";
  for (int i = 0; i < kRounds; ++i) {
    std::vector<std::string> warnings;
    const auto process = ParseProcess(Mutate(sample, random), warnings);
    if (!process.ok()) continue;
    const auto again = ParseProcess(ProcessJson(*process), warnings);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->args, process->args);
    EXPECT_EQ(again->cwd, process->cwd);
  }
}

TEST(OciParseFuzz, DeepNestingIsAnErrorNotACrash) {
  std::vector<std::string> warnings;
  const std::string deep =
      R"({"ociVersion":"1.2.0","annotations":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_FALSE(ParseSpec(deep, warnings).ok());
}

}  // namespace
}  // namespace moat::oci
