// micro: what single operations cost, natively or in a sandbox. One static program, so that every runtime runs the
// same.
//
//   micro [--ms=N] [NAME...]      prints "NAME MEDIAN_NS MIN_NS" a line; N milliseconds for each operation
//
// An operation runs in batches that take about two milliseconds; the numbers are per operation, over the batches.
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace {

double NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}
[[noreturn]] void Die(const char* what) {
  perror(what);
  exit(1);
}
template <typename T>
T Check(T value, const char* what) {
  if (value == static_cast<T>(-1)) Die(what);
  return value;
}

// Two threads or processes that answer each other over a pair of descriptors or a futex word. Prepare() starts the
// partner, Finish() ends it.
int to_partner[2], from_partner[2];
pid_t partner_process;
pthread_t partner_thread;
uint32_t* word;
char* megabytes;
constexpr size_t kCowBytes = 64 << 20;

void OpenPipes() {
  Check(pipe(to_partner), "pipe");
  Check(pipe(from_partner), "pipe");
}
void ClosePipes() {
  for (int fd : {to_partner[0], to_partner[1], from_partner[0], from_partner[1]}) close(fd);
}
void Answer() {
  char c;
  while (read(to_partner[0], &c, 1) == 1 && c != 'q') write(from_partner[1], &c, 1);
}
void PingPong(long n) {
  char c = 'p';
  for (long i = 0; i < n; ++i) {
    if (write(to_partner[1], &c, 1) != 1 || read(from_partner[0], &c, 1) != 1) Die("ping-pong");
  }
}
void StartPipeProcess() {
  OpenPipes();
  partner_process = Check(fork(), "fork");
  if (partner_process == 0) {
    Answer();
    _exit(0);
  }
}
void EndPipeProcess() {
  write(to_partner[1], "q", 1);
  waitpid(partner_process, nullptr, 0);
  ClosePipes();
}
void StartPipeThread() {
  OpenPipes();
  pthread_create(
      &partner_thread, nullptr, [](void*) -> void* { return Answer(), nullptr; }, nullptr);
}
void EndPipeThread() {
  write(to_partner[1], "q", 1);
  pthread_join(partner_thread, nullptr);
  ClosePipes();
}
void StartSocketProcess() {
  Check(socketpair(AF_UNIX, SOCK_STREAM, 0, to_partner), "socketpair");
  partner_process = Check(fork(), "fork");
  if (partner_process == 0) {
    char c;
    while (read(to_partner[0], &c, 1) == 1 && c != 'q') write(to_partner[0], &c, 1);
    _exit(0);
  }
}
void SocketPingPong(long n) {
  char c = 'p';
  for (long i = 0; i < n; ++i) {
    if (write(to_partner[1], &c, 1) != 1 || read(to_partner[1], &c, 1) != 1) Die("ping-pong");
  }
}
void EndSocketProcess() {
  write(to_partner[1], "q", 1);
  waitpid(partner_process, nullptr, 0);
  close(to_partner[0]);
  close(to_partner[1]);
}

long FutexCall(uint32_t* at, int op, uint32_t value) {
  return syscall(SYS_futex, at, op | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}
// word[0]: 1 while it is the partner's turn, 2 ends the partner.
void WaitWhile(uint32_t value) {
  while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value) FutexCall(word, FUTEX_WAIT, value);
}
void StartFutexThread() {
  static uint32_t storage;
  word = &storage;
  *word = 0;
  pthread_create(
      &partner_thread, nullptr,
      [](void*) -> void* {
        for (;;) {
          WaitWhile(0);
          if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 2) return nullptr;
          __atomic_store_n(word, 0, __ATOMIC_RELEASE);
          FutexCall(word, FUTEX_WAKE, 1);
        }
      },
      nullptr);
}
void FutexPingPong(long n) {
  for (long i = 0; i < n; ++i) {
    __atomic_store_n(word, 1, __ATOMIC_RELEASE);
    FutexCall(word, FUTEX_WAKE, 1);
    WaitWhile(1);
  }
}
void EndFutexThread() {
  __atomic_store_n(word, 2, __ATOMIC_RELEASE);
  FutexCall(word, FUTEX_WAKE, 1);
  pthread_join(partner_thread, nullptr);
}

int fd = -1;
template <int flags>
void Open(const char* path) {
  fd = Check(open(path, flags, 0600), path);
}
void CloseFd() { close(fd); }

void WaitChild(pid_t pid) {
  Check(pid, "fork");
  if (waitpid(pid, nullptr, 0) != pid) Die("waitpid");
}
void ExecTrue() {
  char* argv[] = {const_cast<char*>("/micro"), const_cast<char*>("--exit"), nullptr};
  char* envp[] = {nullptr};
  execve("/proc/self/exe", argv, envp);
  _exit(127);
}

constexpr size_t kBlock = 64 << 10;
constexpr size_t kBigFile = 64 << 20;
std::vector<char> block(kBlock, 'b');

// Threads that compute and call in turns, some microseconds each. What is timed is kUnits units of work by any of them:
// so many that it does not matter when this thread gets to look.
struct alignas(64) Worker {
  pthread_t thread;
  std::atomic<long> units;
};
Worker workers[64];
constexpr long kUnits = 20'000;
int worker_count, zero_fd;
std::atomic<bool> workers_end;

void Work(Worker& self) {
  volatile uint32_t x = 1;
  char c;
  while (!workers_end.load(std::memory_order_relaxed)) {
    for (int i = 0; i < 2000; ++i) x = x * 1664525 + 1013904223;
    if (read(zero_fd, &c, 1) != 1) Die("read");
    self.units.fetch_add(1, std::memory_order_relaxed);
  }
}
template <int kThreads>
void StartWorkers() {
  zero_fd = Check(open("/dev/zero", O_RDONLY), "/dev/zero");
  workers_end = false;
  for (worker_count = 0; worker_count < kThreads; ++worker_count) {
    Worker& w = workers[worker_count];
    w.units = 0;
    if (pthread_create(
            &w.thread, nullptr, [](void* self) -> void* { return Work(*static_cast<Worker*>(self)), nullptr; }, &w) !=
        0)
      Die("pthread_create");
  }
}
void AwaitUnits(long n) {
  auto done = [] {
    long sum = 0;
    for (int i = 0; i < worker_count; ++i) sum += workers[i].units.load(std::memory_order_relaxed);
    return sum;
  };
  for (const long start = done(); done() - start < n * kUnits;) usleep(1000);
}
void EndWorkers() {
  workers_end = true;
  for (int i = 0; i < worker_count; ++i) pthread_join(workers[i].thread, nullptr);
  close(zero_fd);
}

struct Operation {
  const char* name;
  void (*run)(long n);
  void (*prepare)() = nullptr;
  void (*finish)() = nullptr;
  long parts = 1;  // what one of `n` is made of; times are told for one part
};
constexpr long kAreaPages = 16384;

const Operation kOperations[] = {
    {"getppid_imm",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         long result;
         asm volatile("movl $110, %%eax\n\tsyscall" : "=a"(result) : : "rcx", "r11", "memory");
       }
     }},
    {"getppid_reg",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         long result = SYS_getppid;
         asm volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
       }
     }},
    {"read1_devzero",
     [](long n) {
       char c;
       for (long i = 0; i < n; ++i) Check(read(fd, &c, 1), "read");
     },
     [] { Open<O_RDONLY>("/dev/zero"); }, CloseFd},
    {"write1_devnull",
     [](long n) {
       for (long i = 0; i < n; ++i) Check(write(fd, "x", 1), "write");
     },
     [] { Open<O_WRONLY>("/dev/null"); }, CloseFd},
    {"stat",
     [](long n) {
       struct stat st;
       for (long i = 0; i < n; ++i) Check(stat("/etc/passwd", &st), "stat");
     }},
    {"stat_enoent",
     [](long n) {
       struct stat st;
       for (long i = 0; i < n; ++i) stat("/etc/no-such-file", &st);
     }},
    {"open_close",
     [](long n) {
       for (long i = 0; i < n; ++i) close(Check(open("/etc/passwd", O_RDONLY), "open"));
     }},
    {"open_fstat_read_close",
     [](long n) {
       char buffer[4096];
       struct stat st;
       for (long i = 0; i < n; ++i) {
         const int f = Check(open("/etc/passwd", O_RDONLY), "open");
         fstat(f, &st);
         while (read(f, buffer, sizeof buffer) > 0) {
         }
         close(f);
       }
     }},
    {"create_write_unlink_tmpfs",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         const int f = Check(open("/tmp/micro-file", O_CREAT | O_RDWR | O_TRUNC, 0600), "create");
         Check(write(f, "x", 1), "write");
         close(f);
         unlink("/tmp/micro-file");
       }
     }},
    {"pipe_pingpong_proc_rt", PingPong, StartPipeProcess, EndPipeProcess},
    {"pipe_pingpong_thread_rt", PingPong, StartPipeThread, EndPipeThread},
    {"unix_pingpong_proc_rt", SocketPingPong, StartSocketProcess, EndSocketProcess},
    {"futex_wake_nowaiter",
     [](long n) {
       uint32_t nobody = 0;
       for (long i = 0; i < n; ++i) FutexCall(&nobody, FUTEX_WAKE, 1);
     }},
    {"futex_pingpong_thread_rt", FutexPingPong, StartFutexThread, EndFutexThread},
    {"mmap_touch_munmap",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         auto* p = static_cast<volatile char*>(
             mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
         *p = 1;
         munmap(const_cast<char*>(p), 4096);
       }
     }},
    {"mprotect",
     [](long n) {
       void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
       *static_cast<volatile char*>(p) = 1;
       for (long i = 0; i < n; ++i) mprotect(p, 4096, i % 2 == 0 ? PROT_READ : PROT_READ | PROT_WRITE);
       munmap(p, 4096);
     }},
    {"pagefault_4k_anon",
     [](long n) {  // areas of 64 MiB, each worked through
       for (long i = 0; i < n; ++i) {
         auto* p = static_cast<volatile char*>(
             mmap(nullptr, kAreaPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
         madvise(const_cast<char*>(p), kAreaPages * 4096, MADV_NOHUGEPAGE);
         for (long page = 0; page < kAreaPages; ++page) p[page * 4096] = 1;
         munmap(const_cast<char*>(p), kAreaPages * 4096);
       }
     },
     nullptr, nullptr, kAreaPages},
    {"fork_exit_wait",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         const pid_t pid = fork();
         if (pid == 0) _exit(0);
         WaitChild(pid);
       }
     }},
    {"fork64M_cow256_wait",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         const pid_t pid = fork();
         if (pid == 0) {
           for (int page = 0; page < 256; ++page)
             const_cast<volatile char*>(megabytes)[static_cast<size_t>(page) * (kCowBytes / 256)] = 2;
           _exit(0);
         }
         WaitChild(pid);
       }
     },
     [] {
       megabytes =
           static_cast<char*>(mmap(nullptr, kCowBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
       memset(megabytes, 1, kCowBytes);
     },
     [] { munmap(megabytes, kCowBytes); }},
    {"vfork_exec_true_wait",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         const pid_t pid = vfork();
         if (pid == 0) ExecTrue();
         WaitChild(pid);
       }
     }},
    {"fork_exec_true_wait",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         const pid_t pid = fork();
         if (pid == 0) ExecTrue();
         WaitChild(pid);
       }
     }},
    {"pthread_create_join",
     [](long n) {
       for (long i = 0; i < n; ++i) {
         pthread_t t;
         if (pthread_create(
                 &t, nullptr, [](void*) -> void* { return nullptr; }, nullptr) != 0)
           Die("pthread_create");
         pthread_join(t, nullptr);
       }
     }},
    {"epoll_wait_0",
     [](long n) {
       epoll_event event;
       for (long i = 0; i < n; ++i) epoll_wait(fd, &event, 1, 0);
     },
     [] { fd = epoll_create1(0); }, CloseFd},
    {"clock_gettime_vdso",
     [](long n) {
       timespec t;
       for (long i = 0; i < n; ++i) clock_gettime(CLOCK_MONOTONIC, &t);
     }},
    {"sched_yield",
     [](long n) {
       for (long i = 0; i < n; ++i) sched_yield();
     }},
    {"signal_self_handler",
     [](long n) {
       for (long i = 0; i < n; ++i) raise(SIGUSR1);
     },
     [] { signal(SIGUSR1, [](int) {}); }},
    {"read_64k_tmpfs",
     [](long n) {
       for (long i = 0; i < n; ++i)
         Check(pread(fd, block.data(), kBlock, static_cast<off_t>(i * kBlock % kBigFile)), "pread");
     },
     [] {
       Open<O_CREAT | O_RDWR>("/tmp/micro-big");
       for (size_t at = 0; at < kBigFile; at += kBlock)
         Check(pwrite(fd, block.data(), kBlock, static_cast<off_t>(at)), "pwrite");
     },
     [] {
       close(fd);
       unlink("/tmp/micro-big");
     }},
    {"write_64k_tmpfs",
     [](long n) {
       for (long i = 0; i < n; ++i)
         Check(pwrite(fd, block.data(), kBlock, static_cast<off_t>(i * kBlock % kBigFile)), "pwrite");
     },
     [] { Open<O_CREAT | O_RDWR>("/tmp/micro-big"); },
     [] {
       close(fd);
       unlink("/tmp/micro-big");
     }},
    {"busy_threads_1", AwaitUnits, StartWorkers<1>, EndWorkers},
    {"busy_threads_8", AwaitUnits, StartWorkers<8>, EndWorkers},
    {"busy_threads_64", AwaitUnits, StartWorkers<64>, EndWorkers},
};

void Measure(const Operation& op, double budget_ns) {
  if (op.prepare != nullptr) op.prepare();
  long n = 1;
  double took = 0;
  for (;;) {  // how many make a batch
    const double start = NowNs();
    op.run(n);
    took = NowNs() - start;
    if (took > 2e6 || n > (1l << 30)) break;
    n = took < 2e5 ? n * 8 : static_cast<long>(static_cast<double>(n) * 2.2e6 / took) + 1;
  }
  const double parts = static_cast<double>(n) * static_cast<double>(op.parts);
  std::vector<double> samples = {took / parts};
  for (const double end = NowNs() + budget_ns; NowNs() < end && samples.size() < 2000;) {
    const double start = NowNs();
    op.run(n);
    samples.push_back((NowNs() - start) / parts);
  }
  if (op.finish != nullptr) op.finish();
  std::sort(samples.begin(), samples.end());
  printf("%s %.1f %.1f\n", op.name, samples[samples.size() / 2], samples[0]);
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "--exit") == 0) return 0;
  double ms = 100;
  std::vector<const char*> names;
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "--ms=", 5) == 0) {
      ms = atof(argv[i] + 5);
    } else {
      names.push_back(argv[i]);
    }
  }
  for (const Operation& op : kOperations) {
    const bool wanted = names.empty() || std::any_of(names.begin(), names.end(),
                                                     [&](const char* name) { return strcmp(name, op.name) == 0; });
    if (wanted) Measure(op, ms * 1e6);
  }
}
