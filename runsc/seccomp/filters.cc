#include "runsc/seccomp/filters.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <set>

namespace moat {
namespace {

const char* violation_process = "";
int violation_log_fd = -1;

// Async-signal-safe text building.
struct Line {
  char text[256];
  size_t size = 0;
  void Add(std::string_view s) {
    size_t n = s.size() < sizeof text - size ? s.size() : sizeof text - size;
    memcpy(text + size, s.data(), n);
    size += n;
  }
  void AddNumber(uint64_t v, unsigned base) {
    char digits[24];
    size_t i = sizeof digits;
    do digits[--i] = "0123456789abcdef"[v % base];
    while ((v /= base) != 0);
    Add({digits + i, sizeof digits - i});
  }
};

void OnViolation(int, siginfo_t* info, void* context) {
  const auto& gregs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Line line;
  line.Add("moat: ");
  line.Add(violation_process);
  line.Add(" made host call ");
  line.Add(HostCallName(info->si_syscall));
  line.Add(" (");
  line.AddNumber(static_cast<uint32_t>(info->si_syscall), 10);
  line.Add(") outside its list; arguments");
  for (int reg : {REG_RDI, REG_RSI, REG_RDX, REG_R10}) {
    line.Add(" 0x");
    line.AddNumber(static_cast<uint64_t>(gregs[reg]), 16);
  }
  line.Add(" at 0x");
  line.AddNumber(reinterpret_cast<uintptr_t>(info->si_call_addr), 16);
  line.Add("\n");
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, line.text, line.size);
  if (violation_log_fd >= 0) n = write(violation_log_fd, line.text, line.size);
  _exit(128 + SIGSYS);
}

}  // namespace

std::span<const PlatformFilters> AllPlatformFilters() {
  static const PlatformFilters kFilters[] = {
      {"systrap", kSentrySystrapFilter, kStubSystrapFilter},
      {"ptrace", kSentryPtraceFilter, kStubPtraceFilter},
  };
  return kFilters;
}

const PlatformFilters& FiltersOf(std::string_view platform) {
  for (const PlatformFilters& f : AllPlatformFilters()) {
    if (f.platform == platform) return f;
  }
  __builtin_trap();  // a platform that nobody wrote a list for must not run without one
}

int FilterProgram::AllowedCount() const {
  std::set<int> numbers;
  for (const HostCallRow& row : rows) {
    if (row.refusal.empty()) numbers.insert(row.number);
  }
  return static_cast<int>(numbers.size());
}

std::string_view HostCallName(int number) {
  struct Name {
    int number;
    std::string_view name;
  };
  // Not only the calls of the lists: a violation is by definition something else.
  static constexpr Name kNames[] = {
#define MOAT_HOST_CALL_NAME(name, number) {number, #name},
#include "host_call_names.inc"
#undef MOAT_HOST_CALL_NAME
  };
  for (const Name& n : kNames) {
    if (n.number == number) return n.name;
  }
  return "?";
}

void InstallViolationHandler(const char* process, int log_fd) {
  violation_process = process;
  violation_log_fd = log_fd;
  struct sigaction action = {};
  action.sa_sigaction = OnViolation;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSYS, &action, nullptr);
}

int LoadFilter(const FilterProgram& filter) {
  sock_fprog program = filter.Program();
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) return errno;
  return 0;
}

}  // namespace moat
