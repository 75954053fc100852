#include "runsc/container/hooks.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/base/scoped_fd.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

ScopedFd MemoryFd(const std::string& contents) {
  ScopedFd fd(memfd_create("hook", MFD_CLOEXEC));
  if (fd.valid() && !contents.empty()) {
    [[maybe_unused]] ssize_t n = pwrite(fd.get(), contents.data(), contents.size(), 0);
  }
  return fd;
}

std::string Contents(int fd) {
  char buffer[1024];
  ssize_t n = pread(fd, buffer, sizeof buffer, 0);
  std::string text(buffer, n > 0 ? n : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const std::string& s : strings) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

absl::Status RunHook(const oci::Hook& hook, const std::string& what, const std::string& state_json,
                     const std::string& directory) {
  ScopedFd input = MemoryFd(state_json), output = MemoryFd("");
  std::vector<std::string> args = hook.args.empty() ? std::vector<std::string>{hook.path} : hook.args;
  std::vector<char*> argv = Pointers(args), envp = Pointers(hook.env);
  pid_t pid = fork();
  if (pid < 0) return HostFailed("{}: fork", what);
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    dup2(input.get(), 0);
    dup2(output.get(), 1);
    dup2(output.get(), 2);
    if (chdir(directory.c_str()) == 0) execve(hook.path.c_str(), argv.data(), envp.data());
    dprintf(2, "%s", ErrnoText(errno).c_str());
    _exit(127);
  }
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  pollfd p = {pidfd.get(), POLLIN, 0};
  int timeout =
      hook.timeout_seconds ? static_cast<int>(std::min<int64_t>(int64_t{*hook.timeout_seconds} * 1000, INT32_MAX)) : -1;
  bool late = poll(&p, 1, timeout) == 0;
  if (late) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (late) return Failed("{} {}: no end after {} s", what, hook.path, *hook.timeout_seconds);
  if (WIFSIGNALED(status))
    return Failed("{} {}: killed by signal {}: {}", what, hook.path, WTERMSIG(status), Contents(output.get()));
  if (WEXITSTATUS(status) != 0)
    return Failed("{} {}: exit status {}: {}", what, hook.path, WEXITSTATUS(status), Contents(output.get()));
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> RunAllHooks(const std::vector<oci::Hook>& hooks, const char* kind,
                                     const std::string& state_json, const std::string& directory) {
  std::vector<std::string> failures;
  for (size_t i = 0; i < hooks.size(); ++i) {
    absl::Status s = RunHook(hooks[i], fmt::format("hooks.{}[{}]", kind, i), state_json, directory);
    if (!s.ok()) failures.push_back(Text(s));
  }
  return failures;
}

absl::Status RunHooks(const std::vector<oci::Hook>& hooks, const char* kind, const std::string& state_json,
                      const std::string& directory) {
  for (size_t i = 0; i < hooks.size(); ++i)
    RETURN_IF_ERROR(RunHook(hooks[i], fmt::format("hooks.{}[{}]", kind, i), state_json, directory));
  return absl::OkStatus();
}

}  // namespace moat
