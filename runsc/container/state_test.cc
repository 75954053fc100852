#include "runsc/container/state.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

class StateTest : public testing::Test {
 protected:
  StateTest() {
    char name[] = "/tmp/moat-state-XXXXXX";
    directory_ = mkdtemp(name);
    root_ = directory_ + "/a/b";
  }
  ~StateTest() override { std::filesystem::remove_all(directory_); }
  std::string directory_, root_;
};

TEST_F(StateTest, Ids) {
  for (const char* id : {"a", "A-b_c.d+e", "..."}) EXPECT_TRUE(CheckContainerId(id).ok()) << id;
  for (const char* id : {"", ".", "..", "a/b", "a b", "ä", "a\n"}) {
    EXPECT_NE(Text(CheckContainerId(id)).find("invalid container ID format"), std::string::npos) << id;
  }
}

TEST_F(StateTest, LifeOfARecord) {
  auto state = StateDir::Create(root_, "x");
  ASSERT_TRUE(state.ok()) << state.status();
  struct stat st;
  ASSERT_EQ(stat(root_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  EXPECT_NE(Text(StateDir::Create(root_, "x").status()).find("container with given ID already exists"),
            std::string::npos);
  EXPECT_FALSE(state->Load().ok());
  ContainerRecord record{.id = "x",
                         .bundle = "/b",
                         .rootfs = "/b/r",
                         .created = "now",
                         .owner = "",
                         .annotations = {{"k", "v"}},
                         .pid = getpid(),
                         .pid_start_time = ProcessStartTime(getpid()),
                         .status = "created"};
  ASSERT_TRUE(state->Save(record).ok());
  auto loaded = state->Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->annotations.at("k"), "v");
  EXPECT_EQ(StatusNow(*loaded), "created");
  loaded->pid_start_time++;  // the pid belongs to somebody else by now
  EXPECT_EQ(StatusNow(*loaded), "stopped");
  EXPECT_EQ(StateDir::List(root_), std::vector<std::string>{"x"});
  EXPECT_TRUE(state->Remove().ok());
  EXPECT_TRUE(absl::IsNotFound(state->Lock()));
  auto gone = StateDir::Open(root_, "x");
  EXPECT_TRUE(absl::IsNotFound(gone.status()));
  EXPECT_NE(Text(gone.status()).find("does not exist"), std::string::npos);
}

TEST_F(StateTest, AZombieIsStopped) {
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  siginfo_t info;
  waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
  EXPECT_EQ(ProcessStartTime(pid), 0u);
  waitpid(pid, nullptr, 0);
}

TEST_F(StateTest, ControlSocketWorksBelowALongRoot) {
  std::string root = root_ + "/" + std::string(150, 'r');
  auto state = StateDir::Create(root, "x");
  ASSERT_TRUE(state.ok()) << state.status();
  auto listener = state->Listen();
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_TRUE(state->Connect().ok());
  EXPECT_TRUE(state->Remove().ok());
  rmdir(root.c_str());
}

TEST_F(StateTest, Signals) {
  EXPECT_EQ(*ParseSignal("9"), 9);
  EXPECT_EQ(*ParseSignal("TERM"), SIGTERM);
  EXPECT_EQ(*ParseSignal("SIGUSR1"), SIGUSR1);
  EXPECT_EQ(*ParseSignal("sigkill"), SIGKILL);
  EXPECT_EQ(*ParseSignal("RTMIN+3"), 37);
  for (const char* bad : {"", "0", "65", "FOO", "-1", "9x"}) EXPECT_FALSE(ParseSignal(bad).ok()) << bad;
}

TEST_F(StateTest, PidFileHasNoNewline) {
  std::string path = root_.substr(0, root_.size() - 4) + "/pid";
  ASSERT_TRUE(WritePidFile(path, 4711).ok());
  FILE* f = fopen(path.c_str(), "r");
  char text[16] = {};
  EXPECT_EQ(fread(text, 1, sizeof text, f), 4u);
  EXPECT_STREQ(text, "4711");
  fclose(f);
  unlink(path.c_str());
}

TEST(MountOptionsTest, FlagsPropagationAndData) {
  auto o = ParseMountOptions({"nosuid", "noexec", "ro", "rw", "rbind", "rprivate", "mode=755", "size=64k"});
  ASSERT_TRUE(o.ok());
  EXPECT_EQ(o->flags, static_cast<uint64_t>(MS_NOSUID | MS_NOEXEC));
  EXPECT_EQ(o->propagation, static_cast<uint64_t>(MS_PRIVATE | MS_REC));
  EXPECT_TRUE(o->bind && o->recursive);
  EXPECT_EQ(o->data, "mode=755,size=64k");
  EXPECT_FALSE(ParseMountOptions({"idmap"}).ok());
}

TEST(MountPlanTest, ErrorsNameFieldAndPath) {
  EXPECT_NE(Text(PlanHostMounts({"/nope-not-there:/x"}).status()).find("--volume=/nope-not-there:/x"),
            std::string::npos);
  EXPECT_FALSE(PlanHostMounts({"relative"}).ok());
  oci::Spec spec;
  spec.root_path = "/nope-not-there";
  std::vector<std::string> warnings;
  EXPECT_EQ(Text(PlanBundleMounts(spec, "/", warnings).status()),
            "root.path: /nope-not-there: no such file or directory");
  spec.root_path = "/";
  spec.mounts = {{"/mnt", "nfs", "server:/x", {}}};
  EXPECT_NE(Text(PlanBundleMounts(spec, "/", warnings).status()).find("mounts[0].type: \"nfs\""), std::string::npos);
}

}  // namespace
}  // namespace moat
