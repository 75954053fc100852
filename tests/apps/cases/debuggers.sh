# timeout: 120
# strace and gdb on small programs: what they print is the same but for numbers of processes and addresses.
set -e
mkdir /tmp/d && cd /tmp/d
export DEBUGINFOD_URLS=
cat >p.c <<'C'
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int counter;
static void handler(int signal) { counter += 100; }
int square(int x) { counter++; return x * x; }
static void *work(void *argument) { return (void *)(long)square(5); }
int main(int count, char **arguments) {
  double d = 1.5;
  int sum = 0;
  void *result;
  pthread_t thread;
  signal(SIGUSR1, handler);
  for (int i = 0; i < 3; i++) sum += square(i);
  pthread_create(&thread, 0, work, 0);
  pthread_join(thread, &result);
  raise(SIGUSR1);
  if (count > 1 && fork() == 0) _exit(3);
  if (count > 1) wait(0);
  printf("sum %d result %ld counter %d d %g\n", sum, (long)result, counter, d);
  if (count > 2) abort();
  return 7;
}
C
gcc -g -O0 -pthread -o p p.c
plain() {
  sed -E 's/0x[0-9a-f]{5,}/ADDRESS/g; s/\((LWP|process) [0-9]+\)/(\1)/; s/process [0-9]+/process/; s/pid ?=? ?[0-9]+/pid/g; s/^[0-9]+ +//; s/(si_utime|si_stime)=[0-9]+/\1/g; s/ +\(LWP/ (LWP/
    s/^tgkill\([0-9]+, [0-9]+/tgkill(/; s/ <unfinished \.\.\.>/) = ?/; s/ +=/ =/'
}

# A tracer that comes in the middle of an execve takes its end for a beginning, on Linux too.
until_it_sleeps() { until grep -q '(sleep) S' /proc/$1/stat; do sleep 0.05; done; sleep 0.3; }

echo "== strace"
strace -o trace ./p || echo "status $?"
grep -E '^(execve|write|rt_sigaction|tgkill|---|exit_group|\+\+\+)' trace | plain
strace -f -o trace ./p fork || echo "status $?"
plain <trace | grep -E '^(write|exit|---|\+\+\+)' | sort
strace -c -o /dev/null true
strace -e trace=none -e signal=none -e inject=getppid:retval=4321 -o /dev/null sh -c 'echo $PPID' | grep -c .
strace -e inject=openat:error=ENOENT:when=2+ -o trace cat /etc/passwd 2>/dev/null || echo "status $?"
strace -f --seccomp-bpf -e trace=chdir -o trace sh -c 'cd /usr; cd /; true'
plain <trace
sleep 1000 & pid=$!
until_it_sleeps $pid
strace -o trace -p $pid & tracer=$!
until grep -q TracerPid:.*[1-9] /proc/$pid/status; do sleep 0.05; done
kill $pid
wait $tracer || echo "status $?"
tail -n 2 trace | plain

echo "== gdb"
debug() { gdb -nx -batch -ex 'set pagination off' -ex 'set confirm off' -ex 'set can-use-hw-watchpoints 0' "$@" 2>&1 | plain; }
debug -ex 'break square' -ex run -ex 'bt 1' -ex next -ex 'print counter' -ex 'disable 1' -ex 'print square(9)' -ex finish \
  -ex 'watch counter' -ex continue -ex 'delete 2' -ex stepi -ex stepi -ex 'info registers rip' -ex 'enable 1' \
  -ex continue -ex 'print $_thread' -ex 'handle SIGUSR1 stop print' -ex continue -ex 'print $_siginfo.si_signo' -ex stepi \
  -ex 'frame function main' -ex 'print d' -ex 'set var d = 2.5' -ex 'catch syscall write' -ex continue -ex 'print $rdx' -ex continue \
  -ex continue ./p | grep -vE '^\[(New )?Thread'
debug -ex 'set follow-fork-mode child' -ex 'catch fork' -ex 'handle SIGUSR1 nostop noprint' -ex 'run fork' -ex continue \
  ./p | grep -vE '^\[(New )?Thread|^[0-9]+	|^Detach|^arch_fork|^_Fork' | sort
debug -ex 'handle SIGUSR1 nostop noprint' -ex 'run fork abort' -ex 'frame function main' -ex 'info locals' ./p | grep -E '^(Program|#|sum|d =)'
./p fork abort >/dev/null 2>&1 || echo "status $?"
sleep 1000 & pid=$!
until_it_sleeps $pid
gdb -nx -batch -p $pid -ex 'print $rax' -ex detach 2>/dev/null | tail -n 2 | plain
kill $pid
wait $pid || echo "status $?"
