// Boots a Kernel over a tmpfs root, on the platform that $PLATFORM names, and runs the guest's scenarios in it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <fstream>
#include <iterator>

#include "fs/pipe/pipe.h"
#include "fs/tmpfs/tmpfs.h"
#include "fs/vfs/vfs.h"
#include "platform/base/log.h"
#include "platform/fiber/timer.h"
#include "platform/memory/backing.h"
#include "platform/memory/safe_copy.h"
#include "platform/registry.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/random.h"
#include "sentry/syscalls/dispatch.h"

namespace moat {
namespace {

struct Sandbox {
  Kernel* kernel = nullptr;
  RefPtr<MountNamespace> mounts;
  RefPtr<const Credentials> root = nullptr;

  VfsContext Context() {
    VfsContext ctx{*root, *mounts, {}, {}};
    ctx.root = ctx.cwd = mounts->root();
    return ctx;
  }
};

// One for all tests: a kernel is for the life of its process.
Sandbox& TheSandbox() {
  static Sandbox* sandbox = [] {
    if (getenv("MOAT_TEST_LOG") != nullptr) SetLog(2, LogLevel::kDebug);
    InstallSafeCopyHandlers();
    SeedRandom();
    InstallSyscallTable();
    KernelOptions options;
    options.memory = std::move(*MemoryFile::Create(*NewMemoryBacking(), 0));
    PlatformOptions platform;
    platform.memory_fd = options.memory->fd();
    const char* name = getenv("PLATFORM");
    options.platform = std::move(*FindPlatform(name != nullptr ? name : "systrap")->create(platform));
    auto* s = new Sandbox;
    s->kernel = Kernel::Create(std::move(options)).value().release();
    if (getenv("MOAT_TEST_LOG") != nullptr) s->kernel->trace_syscalls = true;
    RefPtr<TmpfsFs> fs = TmpfsFs::Create(s->kernel->memory_file(), TmpfsFs::Defaults()).value();
    s->mounts = MountNamespace::Create(fs, "none", 0, s->kernel->root_user_ns());
    s->root = Credentials::CreateRoot(s->kernel->root_user_ns());

    std::ifstream in(MOAT_BOOT_GUEST, std::ios::binary);
    std::string elf((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    VfsContext ctx = s->Context();
    RefPtr<File> file = vfs::Open(ctx, ctx.root, "/guest", {O_CREAT | O_WRONLY, 0755, 0}).value();
    BufferIoSource src(elf.data(), elf.size());
    while (src.remaining() > 0) file->Write(ctx, src).value();
    return s;
  }();
  return *sandbox;
}

struct Outcome {
  int status = -1;
  std::string output;
};

Outcome RunGuest(const std::string& scenario) {
  Sandbox& s = TheSandbox();
  VfsContext ctx = s.Context();
  RefPtr<File> out = vfs::Open(ctx, ctx.root, "/out", {O_CREAT | O_RDWR | O_TRUNC | O_APPEND, 0644, 0}).value();
  ProcessSpec spec;
  spec.executable = "/guest";
  spec.argv = {"/guest", scenario};
  spec.mount_ns = s.mounts;
  spec.credentials = s.root;
  spec.pid_ns = PidNamespace::CreateChild(s.kernel->root_pid_ns(), s.kernel->root_user_ns()).value();
  spec.files = FdTable::Create();
  for (int fd = 0; fd < 3; ++fd) (void)spec.files->Install(out, false, 1024);
  Result<RefPtr<ThreadGroup>> group = s.kernel->CreateProcess(spec);
  if (!group.ok()) return {static_cast<int>(group.error()), "CreateProcess: " + std::string(ErrnoName(group.error()))};
  Outcome outcome;
  outcome.status = (*group)->WaitForExit();
  (*group)->Reap();
  char text[4096];
  BufferIoDest dest(text, sizeof text);
  outcome.output.assign(text, out->PRead(ctx, dest, 0).value());
  return outcome;
}

class Boot : public testing::TestWithParam<const char*> {};

TEST_P(Boot, Scenario) {
  const std::string name = GetParam();
  Outcome o = RunGuest(name);
  EXPECT_EQ(o.status, 0) << o.output;
  EXPECT_NE(o.output.find("ok " + name), std::string::npos) << o.output;
}

INSTANTIATE_TEST_SUITE_P(Guest, Boot,
                         testing::Values("hello", "fork", "threads", "signals", "exec", "thread-exec", "memory",
                                         "many"));

TEST(BootErrors, AMissingProgramIsAnErrno) {
  Sandbox& s = TheSandbox();
  ProcessSpec spec;
  spec.executable = "/missing";
  spec.argv = {"/missing"};
  spec.mount_ns = s.mounts;
  spec.credentials = s.root;
  Result<RefPtr<ThreadGroup>> group = s.kernel->CreateProcess(spec);
  ASSERT_FALSE(group.ok());
  EXPECT_EQ(group.error(), kENOENT);
}

}  // namespace
}  // namespace moat
