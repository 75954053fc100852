// A guest that calls every system call with garbage. It belongs into a sandbox only: natively it would harm the host.
//
//   syscall_fuzz --in-sandbox [--seed=N] [--calls=N] [--seconds=N] [--first=N] [--verbose]
//
// --first starts with that child of the seed, --verbose writes each call to stderr before it is made.
//
// The driver starts children one after the other; each makes a run of random calls, half of them as root in namespaces
// of their own and half as an ordinary user, so that kill(-1) and its like cannot reach the driver. The sandbox must
// neither crash nor hang: the driver ends in the given time, checks that ordinary work still succeeds, and prints a
// last line "fuzz: ok". The same seed makes the same calls.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>

namespace {

constexpr int kLastCall = 470;  // past the newest call of Linux 6.18's x86-64 table
constexpr size_t kArena = 64 << 10;
constexpr int kChildMillis = 700;
constexpr int kVerboseFd = 200;  // a copy of stderr that random close() calls rarely hit

uint64_t state;
bool verbose;

uint64_t Random() {  // splitmix64
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}
uint64_t Below(uint64_t n) { return Random() % n; }

double Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

char* arena;      // readable and writable, followed by a page without access
char* read_only;  // one page

const char* const kPaths[] = {"",
                              "/",
                              ".",
                              "/tmp/fuzz",
                              "/tmp/fuzz/a",
                              "/proc/self/mem",
                              "/proc",
                              "/dev/null",
                              "/dev/zero",
                              "/proc/self/fd/0",
                              "/proc/self/maps",
                              "/dev/ptmx",
                              "/tmp/fuzz/",
                              "/no/such",
                              "../../..",
                              "/proc/self/exe",
                              "/sys",
                              "/dev/full",
                              "tmpfs",
                              "proc",
                              "user.name",
                              "security.x",
                              "/proc/self/ns/mnt",
                              "/tmp/fuzz/dir"};

uint64_t Pointer() {
  switch (Below(12)) {
    case 0:
      return 0;
    case 1:
      return Below(65536);
    case 2:
      return reinterpret_cast<uint64_t>(arena + kArena - Below(64));  // runs into the page without access
    case 3:
      return reinterpret_cast<uint64_t>(read_only + Below(4096));
    case 4:
      return 0x7ffffffff000 - Below(8192);
    case 5:
      return 0xffff800000000000 + Random() % (1ull << 46);
    case 6:
      return reinterpret_cast<uint64_t>(&Pointer);  // code
    case 7: {
      const char* path = kPaths[Below(sizeof kPaths / sizeof *kPaths)];
      char* at = arena + Below(kArena - 64);
      strcpy(at, path);
      return reinterpret_cast<uint64_t>(at);
    }
    default:
      return reinterpret_cast<uint64_t>(arena + (Below(kArena) & ~(Below(2) * 7)));
  }
}

uint64_t Argument() {
  static const uint64_t kEdges[] = {0,
                                    1,
                                    2,
                                    3,
                                    7,
                                    8,
                                    16,
                                    63,
                                    64,
                                    255,
                                    256,
                                    511,
                                    512,
                                    4095,
                                    4096,
                                    4097,
                                    65535,
                                    65536,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    ~0ull,
                                    ~0ull - 1,
                                    ~0ull - 4095,
                                    static_cast<uint64_t>(AT_FDCWD),
                                    0x40000000,
                                    0x1000000000000};
  switch (Below(8)) {
    case 0:
    case 1:
      return Below(40);  // a descriptor
    case 2:
      return kEdges[Below(sizeof kEdges / sizeof *kEdges)];
    case 3:
      return 1ull << Below(64);
    case 4:
      return Random() >> Below(64);
    default:
      return Pointer();
  }
}

// Structures that calls will find behind pointers: small integers, edges, pointers and noise.
void FillArena() {
  for (int i = 0; i < 256; ++i) {
    const uint64_t value = Below(4) == 0 ? Random() : Argument();
    memcpy(arena + (Below(kArena - 8) & ~7ull), &value, sizeof value);
  }
}

void OpenSomeDescriptors() {
  mkdir("/tmp/fuzz", 0777);
  chmod("/tmp/fuzz", 0777);
  mkdir("/tmp/fuzz/dir", 0777);
  int pair[2];
  for (int i = 0; i < 2; ++i) {
    open("/tmp/fuzz/a", O_CREAT | O_RDWR, 0666);
    open("/tmp/fuzz", O_RDONLY | O_DIRECTORY);
    open("/proc/self/status", O_RDONLY);
    open("/dev/zero", O_RDWR);
    open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (pipe2(pair, O_NONBLOCK) == 0) fcntl(pair[0], F_SETPIPE_SZ, 4096);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);
    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair);
    epoll_create1(0);
    eventfd(1, EFD_NONBLOCK);
    timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    memfd_create("fuzz", 0);
  }
}

// The life of one child: random calls until its time is over. Never returns.
[[noreturn]] void RunChild(bool root, uint64_t calls) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!root) {
    setgroups(0, nullptr);
    setresgid(2000, 2000, 2000);
    setresuid(2000, 2000, 2000);
  }
  const rlimit files = {256, 256}, memory = {1ull << 30, 1ull << 30}, size = {16 << 20, 16 << 20};
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_AS, &memory);
  setrlimit(RLIMIT_FSIZE, &size);
  for (int signal = 1; signal < 65; ++signal) {
    if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGTRAP && signal != SIGFPE) {
      struct sigaction action = {};
      action.sa_handler = [](int) {};
      sigaction(signal, &action, nullptr);
    }
  }
  const itimerval kick = {{0, 4000}, {0, 4000}};  // ends calls that block
  setitimer(ITIMER_REAL, &kick, nullptr);
  OpenSomeDescriptors();
  const pid_t self = getpid();
  for (uint64_t i = 0; i < calls; ++i) {
    if (Below(16) == 0) FillArena();
    // Every call in turn, then any, now and then a number that is none.
    const uint64_t number = Below(50) == 0 ? Random() : Below(kLastCall);
    const uint64_t a = Argument(), b = Argument(), c = Argument(), d = Argument(), e = Argument(), f = Argument();
    // These would only end this child before the others had their turn.
    if (number == SYS_exit || number == SYS_exit_group) continue;
    if (verbose) {
      char line[160];
      const int n =
          snprintf(line, sizeof line, "%ld %lx %lx %lx %lx %lx %lx\n", static_cast<long>(number), a, b, c, d, e, f);
      write(kVerboseFd, line, n);
    }
    syscall(static_cast<long>(number), a, b, c, d, e, f);
    if (syscall(SYS_getpid) != self) _exit(0);  // a fork of ours: one of us is enough
  }
  _exit(0);
}

// Whether plain work succeeds: a file, a pipe, a child.
bool SandboxIsWell() {
  int p[2];
  char b[8] = {};
  const int fd = open("/tmp/fuzz-well", O_CREAT | O_RDWR | O_TRUNC, 0600);
  if (fd < 0 || write(fd, "well", 4) != 4 || pread(fd, b, 4, 0) != 4 || memcmp(b, "well", 4) != 0) return false;
  close(fd);
  unlink("/tmp/fuzz-well");
  if (pipe(p) != 0) return false;
  const pid_t child = fork();
  if (child == 0) _exit(write(p[1], "x", 1) == 1 ? 7 : 1);
  int status = 0;
  const bool well = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7 &&
                    read(p[0], b, 1) == 1;
  close(p[0]);
  close(p[1]);
  return well;
}

// Waits for `child` up to kChildMillis, then kills it. False when it does not even die.
bool Finish(pid_t child) {
  const double deadline = Now() + kChildMillis / 1000.0;
  bool killed = false;
  for (;;) {
    int status;
    const pid_t reaped = waitpid(-1, &status, WNOHANG);
    if (reaped == child && (WIFEXITED(status) || WIFSIGNALED(status))) return true;
    if (reaped > 0) continue;  // an orphan that came to us
    if (reaped == -1 && errno == ECHILD) return true;
    if (!killed && Now() > deadline) {
      kill(child, SIGKILL);
      killed = true;
    }
    if (killed && Now() > deadline + 20) return false;
    usleep(1000);
  }
}

uint64_t NumberOf(const char* text, const char* flag) {
  return strncmp(text, flag, strlen(flag)) == 0 ? strtoull(text + strlen(flag), nullptr, 10) : UINT64_MAX;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = 1, calls = 3000, first = 0;
  double seconds = 10;
  bool in_sandbox = false;
  for (int i = 1; i < argc; ++i) {
    uint64_t n;
    if (strcmp(argv[i], "--in-sandbox") == 0) {
      in_sandbox = true;
    } else if (strcmp(argv[i], "--verbose") == 0) {
      verbose = dup2(2, kVerboseFd) == kVerboseFd;
    } else if ((n = NumberOf(argv[i], "--first=")) != UINT64_MAX) {
      first = n;
    } else if ((n = NumberOf(argv[i], "--seed=")) != UINT64_MAX) {
      seed = n;
    } else if ((n = NumberOf(argv[i], "--calls=")) != UINT64_MAX) {
      calls = n;
    } else if ((n = NumberOf(argv[i], "--seconds=")) != UINT64_MAX) {
      seconds = static_cast<double>(n);
    }
  }
  if (!in_sandbox) {
    fprintf(stderr, "syscall_fuzz: for sandboxes only; say --in-sandbox inside of one\n");
    return 2;
  }
  arena = static_cast<char*>(mmap(nullptr, kArena + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  read_only = static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (arena == MAP_FAILED || read_only == MAP_FAILED || mprotect(arena + kArena, 4096, PROT_NONE) != 0) return 1;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (int signal : {SIGHUP, SIGINT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2, SIGTTOU, SIGTTIN, SIGTSTP})
    ::signal(signal, SIG_IGN);

  const double end = Now() + seconds;
  int children = static_cast<int>(first);
  for (; Now() < end; ++children) {
    const bool root = children % 2 == 0;
    state = seed * 1'000'003 + static_cast<uint64_t>(children);
    clone_args args = {};
    args.flags = root ? CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS : 0;
    args.exit_signal = SIGCHLD;
    const pid_t child = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
    if (child == 0) {
      setsid();
      RunChild(root, calls);
    }
    if (child < 0) {
      fprintf(stderr, "fuzz: clone3 of child %d: %s\n", children, strerror(errno));
      return 1;
    }
    if (!Finish(child)) {
      fprintf(stderr, "fuzz: child %d of seed %lu does not die\n", children, static_cast<unsigned long>(seed));
      return 1;
    }
    if (children % 8 == 7 && !SandboxIsWell()) {
      fprintf(stderr, "fuzz: plain work fails after child %d of seed %lu\n", children,
              static_cast<unsigned long>(seed));
      return 1;
    }
  }
  printf("fuzz: %d children of up to %lu calls, seed %lu\n", children, static_cast<unsigned long>(calls),
         static_cast<unsigned long>(seed));
  printf("fuzz: %s\n", SandboxIsWell() ? "ok" : "plain work fails");
  return SandboxIsWell() ? 0 : 1;
}
