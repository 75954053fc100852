// runsc syscalls: the compatibility table, from the one list of system calls.
#include <stdio.h>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/error/error.h"
#include "sentry/syscalls/dispatch.h"

namespace moat {

absl::StatusOr<int> RunSyscalls(const GlobalOptions&, std::vector<std::string> args) {
  OptionParser parser("runsc syscalls", "Prints which system calls guests have.", "");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 0, 0));
  int implemented = 0, partial = 0, missing = 0;
  for (int number = 0; number < kSyscallTableSize; ++number) {
    const SyscallInfo* call = FindSyscall(number);
    if (call == nullptr || call->name.empty()) continue;
    std::string what;
    switch (call->status) {
      case SyscallStatus::kImplemented:
        what = "implemented";
        ++implemented;
        break;
      case SyscallStatus::kPartial:
        what = fmt::format("partial: {}", call->note);
        ++partial;
        break;
      case SyscallStatus::kMissing:
        what = fmt::format("not implemented: {}{}{}", ErrnoName(call->missing_errno), call->note.empty() ? "" : ", ",
                           call->note);
        ++missing;
        break;
    }
    printf("%3d  %-24.*s %s\n", number, static_cast<int>(call->name.size()), call->name.data(), what.c_str());
  }
  printf("%d implemented, %d partial, %d not implemented\n", implemented, partial, missing);
  return 0;
}

}  // namespace moat
