// Calls that the C library of Debian 12 has no wrapper for. Results and errno are those of the C library's wrappers.
#ifndef MOAT_TESTS_GUEST_SUPPORT_RAW_CALLS_H_
#define MOAT_TESTS_GUEST_SUPPORT_RAW_CALLS_H_

#include <linux/futex.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace moat::guest {

inline int OpenAt2(int dir, const char* path, uint64_t flags, uint64_t resolve = 0, uint64_t mode = 0) {
  open_how how = {flags, mode, resolve};
  return static_cast<int>(syscall(SYS_openat2, dir, path, &how, sizeof how));
}
inline int FaccessAt2(int dir, const char* path, int mode, int flags) {
  return static_cast<int>(syscall(SYS_faccessat2, dir, path, mode, flags));
}
inline int Futex(void* word, int op, uint32_t value, const timespec* timeout = nullptr, void* word2 = nullptr,
                 uint32_t value3 = 0) {
  return static_cast<int>(syscall(SYS_futex, word, op, value, timeout, word2, value3));
}
// `value2` in the place of the timeout, for the requeue and wake_op operations.
inline int FutexTwo(void* word, int op, uint32_t value, uintptr_t value2, void* word2, uint32_t value3) {
  return static_cast<int>(syscall(SYS_futex, word, op, value, value2, word2, value3));
}
inline int FutexWaitv(futex_waitv* waiters, unsigned count, const timespec* timeout = nullptr,
                      clockid_t clock = CLOCK_MONOTONIC, unsigned flags = 0) {
  return static_cast<int>(syscall(SYS_futex_waitv, waiters, count, flags, timeout, clock));
}
inline pid_t Clone3(clone_args* args, size_t size = sizeof(clone_args)) {
  return static_cast<pid_t>(syscall(SYS_clone3, args, size));
}
inline int PidfdOpen(pid_t pid, unsigned flags = 0) { return static_cast<int>(syscall(SYS_pidfd_open, pid, flags)); }
inline int PidfdSendSignal(int fd, int signal, siginfo_t* info = nullptr, unsigned flags = 0) {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, fd, signal, info, flags));
}
inline int PidfdGetfd(int pidfd, int fd, unsigned flags = 0) {
  return static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, fd, flags));
}
inline int RtSigqueueinfo(pid_t pid, int signal, siginfo_t* info) {
  return static_cast<int>(syscall(SYS_rt_sigqueueinfo, pid, signal, info));
}
inline int RtTgsigqueueinfo(pid_t tgid, pid_t tid, int signal, siginfo_t* info) {
  return static_cast<int>(syscall(SYS_rt_tgsigqueueinfo, tgid, tid, signal, info));
}
inline int Membarrier(int command, unsigned flags = 0, int cpu = 0) {
  return static_cast<int>(syscall(SYS_membarrier, command, flags, cpu));
}

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_RAW_CALLS_H_
