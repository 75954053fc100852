// What boot_test.cc runs in the sandbox: one small scenario a name. Prints "ok NAME" when all went as on Linux.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(cond)                                               \
  do {                                                            \
    if (!(cond)) {                                                \
      printf("line %d: %s (errno %d)\n", __LINE__, #cond, errno); \
      fflush(stdout);                                             \
      exit(1);                                                    \
    }                                                             \
  } while (0)

static void Hello(void) { printf("hello, pid %d\n", getpid()); }

static void ForkPipe(void) {
  int p[2];
  CHECK(pipe(p) == 0);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(p[0]);
    CHECK(write(p[1], "from the child", 14) == 14);
    _exit(42);
  }
  close(p[1]);
  char text[64] = {0};
  CHECK(read(p[0], text, sizeof text) == 14);
  CHECK(strcmp(text, "from the child") == 0);
  CHECK(read(p[0], text, sizeof text) == 0);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
  CHECK(wait(NULL) == -1 && errno == ECHILD);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int counter;
static __thread int local = 7;

static void* Count(void* arg) {
  for (int i = 0; i < 500; ++i) {
    pthread_mutex_lock(&mutex);
    ++counter;
    pthread_mutex_unlock(&mutex);
  }
  local += (int)(long)arg;
  return (void*)(long)local;
}

static void Threads(void) {
  pthread_t t[4];
  for (long i = 0; i < 4; ++i) CHECK(pthread_create(&t[i], NULL, Count, (void*)i) == 0);
  for (long i = 0; i < 4; ++i) {
    void* result;
    CHECK(pthread_join(t[i], &result) == 0);
    CHECK((long)result == 7 + i);
  }
  CHECK(counter == 2000);
}

static volatile sig_atomic_t got;
static double kept;
static void OnSignal(int signo, siginfo_t* info, void* context) {
  got = signo;
  kept = (double)info->si_code + 0.5;  // uses the vector registers
}

static void Signals(void) {
  struct sigaction a = {0};
  a.sa_sigaction = OnSignal;
  a.sa_flags = SA_SIGINFO | SA_RESTART;
  CHECK(sigaction(SIGUSR1, &a, NULL) == 0);
  volatile double x = 1.25;
  CHECK(kill(getpid(), SIGUSR1) == 0);
  CHECK(got == SIGUSR1 && x == 1.25);
  // A blocked signal stays pending.
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  got = 0;
  CHECK(sigprocmask(SIG_BLOCK, &set, &old) == 0);
  CHECK(raise(SIGUSR1) == 0 && got == 0);
  siginfo_t info;
  CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && got == 0);
  CHECK(raise(SIGUSR1) == 0);
  CHECK(sigsuspend(&old) == -1 && errno == EINTR && got == SIGUSR1);
  CHECK(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
  // An interrupted read without SA_RESTART.
  a.sa_flags = SA_SIGINFO;
  CHECK(sigaction(SIGALRM, &a, NULL) == 0);
  int p[2];
  CHECK(pipe(p) == 0);
  struct itimerval timer = {{0, 0}, {0, 20000}};
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  char c;
  CHECK(read(p[0], &c, 1) == -1 && errno == EINTR && got == SIGALRM);
  // A fault is caught on the alternate stack, with the address.
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  CHECK(sigaltstack(&stack, NULL) == 0);
  // Death by signal.
  pid_t child = fork();
  if (child == 0) {
    *(volatile int*)8 = 1;
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  // Stop and continue.
  child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  CHECK(kill(child, SIGSTOP) == 0);
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  CHECK(kill(child, SIGCONT) == 0);
  CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
  CHECK(kill(child, SIGTERM) == 0);
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void Exec(char* self) {
  pid_t child = vfork();
  if (child == 0) {
    execl(self, self, "execed", (char*)NULL);
    _exit(99);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 17);
  CHECK(execl("/nonexistent", "x", (char*)NULL) == -1 && errno == ENOENT);
}

static char* self_path;
static void* ExecFromThread(void* arg) {
  execl(self_path, self_path, "execed", (char*)NULL);
  return NULL;
}

static void ThreadExec(char* self) {
  self_path = self;
  pid_t child = fork();
  if (child == 0) {
    pthread_t t;
    pthread_create(&t, NULL, ExecFromThread, NULL);
    for (;;) pause();
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 17);
}

// fork's copies are private.
static void Memory(void) {
  char* p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(p != MAP_FAILED);
  memset(p, 'a', 1 << 20);
  int* shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t child = fork();
  if (child == 0) {
    memset(p, 'b', 1 << 20);
    *shared = 5;
    _exit(0);
  }
  CHECK(waitpid(child, NULL, 0) == child);
  CHECK(p[0] == 'a' && p[(1 << 20) - 1] == 'a' && *shared == 5);
}

static void Many(void) {
  for (int i = 0; i < 30; ++i) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(i);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == i);
  }
}

int main(int argc, char** argv) {
  const char* name = argc > 1 ? argv[1] : "hello";
  if (strcmp(name, "hello") == 0) Hello();
  if (strcmp(name, "fork") == 0) ForkPipe();
  if (strcmp(name, "threads") == 0) Threads();
  if (strcmp(name, "signals") == 0) Signals();
  if (strcmp(name, "exec") == 0) Exec(argv[0]);
  if (strcmp(name, "thread-exec") == 0) ThreadExec(argv[0]);
  if (strcmp(name, "memory") == 0) Memory();
  if (strcmp(name, "many") == 0) Many();
  if (strcmp(name, "execed") == 0) return 17;
  printf("ok %s\n", name);
  return 0;
}
