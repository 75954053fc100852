#include "runsc/boot/sentry_main.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "fs/hostfs/gofer_client.h"
#include "fs/hostfs/host_stdio.h"
#include "fs/vfs/dentry_lru.h"
#include "platform/fiber/host_poller.h"
#include "platform/fiber/timer.h"
#include "platform/memory/memory_file.h"
#include "platform/memory/safe_copy.h"
#include "platform/registry.h"
#include "runsc/boot/console.h"
#include "runsc/boot/control.h"
#include "runsc/boot/lockdown.h"
#include "runsc/boot/mounts.h"
#include "runsc/boot/register_types.h"
#include "runsc/error/error.h"
#include "runsc/seccomp/filters.h"
#include "sentry/kernel/random.h"

namespace moat {
namespace {

absl::Status PlatformFailed(const BootConfig& config, Errno why) {
  return Failed("start platform {}: {}", config.platform, ErrnoText(why));
}

absl::StatusOr<std::unique_ptr<Platform>> MakePlatform(const BootConfig& config, int memory_fd) {
  const PlatformInfo* info = FindPlatform(config.platform);
  if (info == nullptr) return Failed("unknown platform {}", config.platform);
  static const sock_fprog stub_program = FiltersOf(config.platform).stub.Program();
  PlatformOptions options;
  options.memory_fd = memory_fd;
  options.cpus = config.cpus;
  options.stub_filter = &stub_program;
  Result<std::unique_ptr<Platform>> platform = info->create(options);
  if (!platform.ok()) return PlatformFailed(config, platform.error());
  return *std::move(platform);
}

uint64_t HostMemory() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
}

absl::StatusOr<std::unique_ptr<Kernel>> MakeKernel(const BootConfig& config) {
  Result<std::unique_ptr<MemoryFile>> memory = MemoryFile::Create(ScopedFd(config.memory_fd), 0);
  if (!memory.ok()) return Failed("make the sandbox's memory: {}", ErrnoText(memory.error()));
  KernelOptions options;
  ASSIGN_OR_RETURN(options.platform, MakePlatform(config, (*memory)->fd()));
  // What the sentry touches first shall not become 2 MiB; the stubs, whose zygote there is now, decide by address.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  options.memory = *std::move(memory);
  options.cpus = HostThread::AllCpus();
  options.total_memory = HostMemory();
  Result<std::unique_ptr<Kernel>> kernel = Kernel::Create(std::move(options));
  if (!kernel.ok()) return Failed("start the kernel: {}", ErrnoText(kernel.error()));
  return *std::move(kernel);
}

// A cached name of a host file is a descriptor of the gofer's, whose limit is ours; overlays have one for each layer.
void BoundDentries() {
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  DentryLru::Get().SetLimit(std::min<size_t>(DentryLru::kDefaultLimit, files.rlim_cur / 2));
}

absl::Status Boot(ContainerState& state) {
  const BootConfig& config = state.config;
  ASSIGN_OR_RETURN(std::unique_ptr<Kernel> kernel, MakeKernel(config));
  kernel->trace_syscalls = config.strace;
  if (pid_t zygote = kernel->platform().zygote_pid(); zygote > 0) {
    state.zygote.Reset(static_cast<int>(syscall(SYS_pidfd_open, zygote, 0)));
    if (!state.zygote.valid()) return HostFailed("open the zygote's pidfd");
  }
  state.kernel = kernel.release();  // lives as long as the process

  std::vector<ScopedFd> connections;
  for (int fd : config.gofer_fds) connections.emplace_back(fd);
  Result<RefPtr<GoferClient>> gofer = GoferClient::Create(std::move(connections));
  if (!gofer.ok()) return Failed("connect to the gofer: {}", ErrnoText(gofer.error()));
  state.gofer = *std::move(gofer);
  RegisterTypes(*state.kernel);
  BoundDentries();

  std::vector<ScopedFd> stdio;
  for (int fd = 0; fd < 3; ++fd) stdio.emplace_back(dup(fd));
  Result<HostStdio> wrapped = WrapHostStdio(std::move(stdio), state.gofer);
  if (!wrapped.ok()) return Failed("take over stdio: {}", ErrnoText(wrapped.error()));
  state.stdio = *std::move(wrapped);

  SeedRandom();
  // Threads and descriptors that later code would otherwise make on first use.
  StartTimerThread();
  HostPoller::Get();
  RETURN_IF_ERROR(LockDown(FiltersOf(config.platform).sentry, config.log_fd));

  Result<RefPtr<PidNamespace>> pids =
      PidNamespace::CreateChild(state.kernel->root_pid_ns(), state.kernel->root_user_ns());
  if (!pids.ok()) return Failed("make the pid namespace: {}", ErrnoText(pids.error()));
  state.pid_ns = *std::move(pids);
  ASSIGN_OR_RETURN(state.mounts, BuildMounts(config, *state.kernel, state.pid_ns, state.gofer));
  const RefPtr<UserNamespace>& owner = state.kernel->root_user_ns();
  state.uts_ns =
      MakeRef<UtsNamespace>(owner, config.hostname.empty() ? state.kernel->root_uts_ns()->hostname() : config.hostname,
                            config.domainname.empty() ? "(none)" : config.domainname);
  state.ipc_ns = MakeRef<IpcNamespace>(owner);
  if (config.process.user.uid != 0) GiveStdioTo(state, config.process.user.uid);
  if (config.process.terminal) RETURN_IF_ERROR(SetUpConsole(state));
  if (Result<void> ready = state.kernel->platform().AwaitReady(); !ready.ok())
    return PlatformFailed(config, ready.error());
  return absl::OkStatus();
}

}  // namespace

void RunSentry(BootConfig config, Channel supervisor) {
  PrepareLibraries();
  SetLog(config.log_fd, config.log_level);
  InstallSafeCopyHandlers();
  static ContainerState* state = new ContainerState();
  state->config = std::move(config);
  absl::Status booted = Boot(*state);
  if (!booted.ok()) {
    [[maybe_unused]] auto sent = supervisor.Send(MessageKind::kFailed, ExitCodeOf(booted), Text(booted));
    _exit(1);
  }
  ServeContainer(*state, std::move(supervisor));
}

}  // namespace moat
