#include "runsc/sandbox/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/error/error.h"

namespace moat {
namespace {

// Runs `probe` in a confined child and returns the text that it sends back.
std::string InConfinement(const Confinement& confinement, absl::FunctionRef<std::string()> probe) {
  auto child = StartConfined(confinement, [&](Channel channel) {
    absl::Status s = Confine(confinement, channel, std::vector<int>{0, 1, 2});
    std::string text = s.ok() ? probe() : "confine: " + Text(s);
    [[maybe_unused]] auto sent = channel.Send(MessageKind::kOk, 0, text);
    _exit(0);
  });
  if (!child.ok()) return "start: " + Text(child.status());
  Result<Message> message = child->channel.Receive();
  waitpid(child->pid, nullptr, 0);
  return message.ok() ? message->text : "no answer";
}

TEST(ConfineTest, RootIsEmptyAndReadOnly) {
  EXPECT_EQ(InConfinement({"moat-test"},
                          [] {
                            std::string out;
                            if (mkdir("/x", 0700) == 0 || errno != EROFS) out += "mkdir ";
                            if (access("/proc", F_OK) == 0) out += "proc ";
                            if (access("/..", F_OK) != 0) out += "dotdot ";
                            if (open("/../etc/passwd", O_RDONLY) >= 0) out += "escape ";
                            return out;
                          }),
            "");
}

TEST(ConfineTest, IdsCapabilitiesAndNewPrivileges) {
  EXPECT_EQ(InConfinement({"moat-test"},
                          [] {
                            std::string out;
                            if (getuid() != 65534 || geteuid() != 65534) out += "uid ";
                            if (getpid() != 1) out += "pid ";
                            if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) out += "nnp ";
                            for (int cap = 0; cap <= 40; ++cap) {
                              if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0) out += "bounding ";
                            }
                            if (setuid(0) == 0) out += "setuid ";
                            if (unshare(CLONE_NEWNET) == 0) out += "unshare ";
                            int sig = 0;
                            if (prctl(PR_GET_PDEATHSIG, &sig, 0, 0, 0) != 0 || sig != SIGKILL) out += "pdeathsig ";
                            if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1) out += "dumpable ";
                            return out;
                          }),
            "");
}

TEST(ConfineTest, GoferKeepsIdsAndItsProcSelfFd) {
  ScopedFd proc;
  Confinement confinement{"moat-test", /*keep_ids=*/true, ~uint64_t{0}, &proc};
  uid_t uid = geteuid();
  EXPECT_EQ(InConfinement(confinement,
                          [&]() -> std::string {
                            if (geteuid() != uid) return "uid";
                            if (faccessat(proc.get(), "1", F_OK, AT_SYMLINK_NOFOLLOW) != 0) return "own fds";
                            if (openat(proc.get(), "../../../etc/passwd", O_RDONLY) >= 0) return "escape";
                            return "";
                          }),
            "");
}

TEST(ConfineTest, OnlyTheKeptDescriptorsAreOpen) {
  int extra = open("/dev/null", O_RDONLY);
  EXPECT_EQ(InConfinement({"moat-test"},
                          [] {
                            int open_fds = 0;
                            for (int fd = 3; fd < 256; ++fd) open_fds += fcntl(fd, F_GETFD) >= 0;
                            return std::to_string(open_fds);  // the channel
                          }),
            "1");
  close(extra);
}

TEST(ChannelTest, CarriesTextNumbersAndDescriptors) {
  auto pair = Channel::Pair();
  ASSERT_TRUE(pair.ok());
  int fd = open("/dev/zero", O_RDONLY);
  std::string big(200'000, 'x');
  ASSERT_TRUE(pair->first.Send(MessageKind::kExec, -7, "hello", {&fd, 1}).ok());
  Result<Message> m = pair->second.Receive();
  ASSERT_TRUE(m.ok());
  EXPECT_EQ(m->kind, MessageKind::kExec);
  EXPECT_EQ(m->number, -7);
  EXPECT_EQ(m->text, "hello");
  ASSERT_EQ(m->fds.size(), 1u);
  char c = 1;
  EXPECT_EQ(read(m->fds[0].get(), &c, 1), 1);
  EXPECT_EQ(c, 0);
  close(fd);
}

TEST(ChannelTest, RefusesNonsenseAndNoticesTheEnd) {
  auto pair = Channel::Pair();
  ASSERT_TRUE(pair.ok());
  char garbage[64];
  memset(garbage, 0x5a, sizeof garbage);
  ASSERT_EQ(write(pair->first.fd(), garbage, sizeof garbage), 64);
  EXPECT_EQ(pair->second.Receive().error(), kEPROTO);
  pair->first = Channel();
  auto other = Channel::Pair();
  other->first = Channel();
  EXPECT_EQ(other->second.Receive().error(), kEPIPE);
  EXPECT_EQ(other->second.Send(MessageKind::kOk).error(), kEPIPE);
}

}  // namespace
}  // namespace moat
