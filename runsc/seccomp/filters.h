// The seccomp programs of the sandbox's processes, compiled at build time, and the rows they came from.
// Source: seccomp(2). See docs/host-syscalls.md.
#ifndef MOAT_RUNSC_SECCOMP_FILTERS_H_
#define MOAT_RUNSC_SECCOMP_FILTERS_H_

#include <linux/filter.h>  // sock_fprog

#include <span>
#include <string>
#include <string_view>

namespace moat {

struct HostCallRow {
  std::string_view name;
  int number;
  std::string_view source;      // which part of the program makes it: "platform", "hostfs", "boot", ...
  std::string_view conditions;  // "arg1 == TCGETS"; empty: any arguments
  std::string_view refusal;     // "ENOSYS": never made, the kernel answers this; empty: allowed
  std::string_view reason;
};

struct FilterProgram {
  std::string_view process;  // "sentry", "gofer", "stub"
  std::span<const sock_filter> code;
  std::span<const HostCallRow> rows;

  // Distinct calls that may really be made.
  int AllowedCount() const;
  sock_fprog Program() const {
    return {static_cast<unsigned short>(code.size()), const_cast<sock_filter*>(code.data())};
  }
};

extern const FilterProgram kSentryPtraceFilter, kStubPtraceFilter;
extern const FilterProgram kSentrySystrapFilter, kStubSystrapFilter;
extern const FilterProgram kGoferFilter;

// What sentry and stubs load on a platform.
struct PlatformFilters {
  std::string_view platform;
  const FilterProgram& sentry;
  const FilterProgram& stub;
};
std::span<const PlatformFilters> AllPlatformFilters();
// `platform` must be one of the registry's.
const PlatformFilters& FiltersOf(std::string_view platform);

// All lists as Markdown tables: docs/host-syscalls.md has them, and a test compares.
std::string HostCallTables();

// The host's name of a system call that some filter knows, for messages; "?" else.
std::string_view HostCallName(int number);

// Installs the SIGSYS handler that names a call outside the list on stderr and on `log_fd` (-1: none) and ends the
// process with status 128+SIGSYS. `process` must be a literal.
void InstallViolationHandler(const char* process, int log_fd);

// Loads `filter` for all threads of the process. no_new_privs must be set. Answers the errno, 0 on success.
int LoadFilter(const FilterProgram& filter);

}  // namespace moat

#endif  // MOAT_RUNSC_SECCOMP_FILTERS_H_
