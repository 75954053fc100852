#include "runsc/boot/start_hooks.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include "fs/tmpfs/memfd.h"
#include "fs/vfs/vfs.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// Until the process has ended, which it is made to at `deadline`. False: it was.
bool WaitFor(ThreadGroup& group, Deadline deadline) {
  Parker parker;
  ParkerWaiter waiter(EPOLLIN, parker);
  group.pid().wait_queue().Add(waiter);
  bool in_time = true;
  while (!group.IsZombie()) {
    if (parker.Park(deadline)) continue;
    in_time = false;
    deadline = kNoDeadline;
    [[maybe_unused]] auto sent = group.SendSignal(UserSigInfo(SIGKILL, SI_USER, 0, 0), /*from_outside=*/true);
  }
  group.pid().wait_queue().Remove(waiter);
  return in_time;
}

class HookRunner {
 public:
  explicit HookRunner(ContainerState& state)
      : cred_(Credentials::CreateRoot(state.kernel->root_user_ns())),
        root_(state.mounts->root()),
        ctx_{.cred = *cred_, .mounts = *state.mounts, .root = root_, .cwd = root_},
        state_(state) {}

  absl::Status Run(const oci::Hook& hook, const std::string& what,
                   absl::FunctionRef<ProcessSpec(const oci::Process&, const HostStdio&)> make_spec) {
    Result<RefPtr<File>> input = TextFile(state_.config.state_json), output = TextFile("");
    if (!input.ok() || !output.ok()) return Failed("{}: no memory for its stdio", what);
    HostStdio stdio;
    stdio.files = {*input, *output, *output};
    oci::Process process = state_.config.process;
    process.args = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
    process.env = hook.env;
    process.terminal = false;
    ProcessSpec spec = make_spec(process, stdio);
    spec.executable = hook.path;
    Result<RefPtr<ThreadGroup>> group = state_.kernel->CreateProcess(spec);
    if (!group.ok()) return Failed("{} {}: {}", what, hook.path, ErrnoText(group.error()));
    const bool in_time =
        WaitFor(**group, hook.timeout_seconds ? DeadlineAfter(*hook.timeout_seconds * kNanosPerSec) : kNoDeadline);
    const int status = (*group)->exit_status();
    (*group)->Reap();
    if (!in_time) return Failed("{} {}: no end after {} s", what, hook.path, *hook.timeout_seconds);
    if (WIFSIGNALED(status))
      return Failed("{} {}: killed by signal {}: {}", what, hook.path, WTERMSIG(status), Text(**output));
    if (WEXITSTATUS(status) != 0)
      return Failed("{} {}: exit status {}: {}", what, hook.path, WEXITSTATUS(status), Text(**output));
    return absl::OkStatus();
  }

 private:
  Result<RefPtr<File>> TextFile(std::string text) {
    RefPtr<File> file = TRY(CreateMemfd(ctx_, "hook", 0));
    BufferIoSource source(text.data(), text.size());
    while (source.remaining() > 0) {
      if (TRY(file->PWrite(ctx_, source, static_cast<int64_t>(text.size() - source.remaining()))) == 0) return kEIO;
    }
    return file;
  }

  std::string Text(File& file) {
    char buffer[1024];
    BufferIoDest dest(buffer, sizeof buffer);
    std::string text(buffer, file.PRead(ctx_, dest, 0).value_or(0));
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }

  RefPtr<const Credentials> cred_;
  VfsPath root_;
  VfsContext ctx_;
  ContainerState& state_;
};

}  // namespace

absl::Status RunStartHooks(ContainerState& state,
                           absl::FunctionRef<ProcessSpec(const oci::Process&, const HostStdio&)> make_spec) {
  HookRunner runner(state);
  const std::vector<oci::Hook>& hooks = state.config.start_hooks;
  for (size_t i = 0; i < hooks.size(); ++i)
    RETURN_IF_ERROR(runner.Run(hooks[i], fmt::format("hooks.startContainer[{}]", i), make_spec));
  return absl::OkStatus();
}

}  // namespace moat
