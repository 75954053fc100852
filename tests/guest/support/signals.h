// Signal state that a test changes and that is put back when the object dies, and a recorder of delivered signals.
#ifndef MOAT_TESTS_GUEST_SUPPORT_SIGNALS_H_
#define MOAT_TESTS_GUEST_SUPPORT_SIGNALS_H_

#include <signal.h>
#include <string.h>

#include <initializer_list>

#include "tests/guest/support/syscall_result.h"

namespace moat::guest {

inline sigset_t SignalSet(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : signals) sigaddset(&set, signal);
  return set;
}

class ScopedAction {
 public:
  ScopedAction(int signal, const struct sigaction& action) : signal_(signal) {
    EXPECT_OK(sigaction(signal, &action, &old_));
  }
  ScopedAction(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0, sigset_t mask = {})
      : signal_(signal) {
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    action.sa_mask = mask;
    EXPECT_OK(sigaction(signal, &action, &old_));
  }
  ScopedAction(int signal, void (*handler)(int)) : signal_(signal) {
    struct sigaction action = {};
    action.sa_handler = handler;
    EXPECT_OK(sigaction(signal, &action, &old_));
  }
  ScopedAction(const ScopedAction&) = delete;
  ScopedAction& operator=(const ScopedAction&) = delete;
  ~ScopedAction() { sigaction(signal_, &old_, nullptr); }
  const struct sigaction& old() const { return old_; }

 private:
  int signal_;
  struct sigaction old_;
};

class ScopedBlock {
 public:
  explicit ScopedBlock(std::initializer_list<int> signals) {
    const sigset_t set = SignalSet(signals);
    EXPECT_EQ(pthread_sigmask(SIG_BLOCK, &set, &old_), 0);
  }
  ScopedBlock(const ScopedBlock&) = delete;
  ScopedBlock& operator=(const ScopedBlock&) = delete;
  ~ScopedBlock() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

 private:
  sigset_t old_;
};

// What Record() saw since the last Reset(). One process-wide log, written by handlers; at most kMax entries.
struct SignalLog {
  static constexpr int kMax = 64;
  static inline volatile int count = 0;
  static inline siginfo_t info[kMax];
  static void Reset() { count = 0; }
  static void Record(int, siginfo_t* si, void*) {
    if (count < kMax) info[count] = *si;
    count = count + 1;
  }
};

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_SIGNALS_H_
