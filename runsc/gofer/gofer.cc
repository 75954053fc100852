#include "runsc/gofer/gofer.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <latch>
#include <thread>

#include "platform/base/own_image.h"
#include "runsc/gofer/lockdown.h"
#include "runsc/gofer/server.h"
#include "runsc/seccomp/filters.h"

namespace moat {
namespace {

// The sanitizers' runtime makes host calls of its own, which no list can foresee.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

int Fail(const char* what, int error) {
  fprintf(stderr, "runsc: gofer: %s: %s\n", what, strerror(error));
  return 1;
}

void Pin(std::thread& thread, size_t cpu) {
  if (cpu >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // a CPU that we may not use: the thread floats
}

}  // namespace

int RunGofer(GoferConfig config) {
  if (!config.proc_self_fd.valid()) {
    config.proc_self_fd.Reset(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!config.proc_self_fd.valid()) return Fail("cannot open /proc/self/fd", errno);
  }
  gofer::RaiseFileLimits();
  if (config.lock_down) {
    signal(SIGPIPE, SIG_IGN);
    Result<void> dropped = gofer::DropCapabilities();
    if (!dropped.ok()) return Fail("cannot drop capabilities", static_cast<int>(dropped.error()));
  }

  gofer::Server server(config.mounts);
  size_t count = config.connections.size();
  // One for each CPU: with one CPU an assistant would only take turns with whom it assists.
  const bool assisted = count > 1;
  std::latch prepared(static_cast<ptrdiff_t>(count + (assisted ? 1 : 0))), go(1);
  std::atomic<int> error{0};
  auto prepare = [&] {
    Result<void> ready = gofer::Server::PrepareThread(config.proc_self_fd.get());
    if (!ready.ok()) error = static_cast<int>(ready.error());
    prepared.count_down();
    go.wait();
    return error == 0;
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      if (prepare()) server.Serve(config.connections[i].get());
      // The client sees at once that nobody serves this connection any more.
      config.connections[i].Reset();
    });
  }
  std::thread assistant;
  if (assisted) {
    assistant = std::thread([&] {
      if (prepare()) server.Assist();
    });
  }
  prepared.wait();
  // Not by the threads themselves: to move to a CPU that is busy with the sentry's start takes longer than all of this.
  for (size_t i = 0; i < count; ++i) Pin(threads[i], i);
  const char* failed = "cannot prepare a thread";
  DropOwnCode();
  if (error == 0 && config.lock_down) {
    InstallViolationHandler("gofer", config.log_fd);
    if (!kSanitized) error = LoadFilter(kGoferFilter);
    failed = "cannot load the seccomp filter";
  }
  go.count_down();
  for (std::thread& t : threads) t.join();
  server.StopAssisting();
  if (assisted) assistant.join();
  return error == 0 ? 0 : Fail(failed, error);
}

}  // namespace moat
