// Errors of the runsc commands: absl::Status with lower-case, Go-like texts (managers match them), and the exit
// code that a status asks for. Never used on the guest path.
#ifndef MOAT_RUNSC_ERROR_ERROR_H_
#define MOAT_RUNSC_ERROR_ERROR_H_

#include <fmt/core.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/base/errno.h"

namespace moat {

// "no such file or directory"
std::string ErrnoText(int error);
inline std::string ErrnoText(Errno e) { return ErrnoText(static_cast<int>(e)); }

template <typename... Args>
absl::Status Failed(fmt::format_string<Args...> format, Args&&... args) {
  return absl::UnknownError(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
absl::Status Invalid(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InvalidArgumentError(fmt::format(format, std::forward<Args>(args)...));
}
// The text, ": ", and what errno says.
template <typename... Args>
absl::Status HostFailed(fmt::format_string<Args...> format, Args&&... args) {
  int error = errno;
  return absl::UnknownError(fmt::format(format, std::forward<Args>(args)...) + ": " + ErrnoText(error));
}

inline std::string Text(const absl::Status& s) { return std::string(s.message().data(), s.message().size()); }
// Puts `context` and ": " before the text; keeps code and exit code.
absl::Status Annotate(const absl::Status& s, const std::string& context);

// What the process exits with for this failure; 1 unless set (126: cannot execute, 127: not found).
absl::Status WithExitCode(absl::Status s, int code);
int ExitCodeOf(const absl::Status& s, int fallback = 1);

// An exit code of the program for an execve(2) error: 127 for what does not exist, else 126.
int ExecExitCode(Errno e);

}  // namespace moat

#define MOAT_STATUS_CAT2(a, b) a##b
#define MOAT_STATUS_CAT(a, b) MOAT_STATUS_CAT2(a, b)
#define RETURN_IF_ERROR(expr)                                                     \
  do {                                                                            \
    if (absl::Status moat_status = (expr); !moat_status.ok()) return moat_status; \
  } while (0)
#define ASSIGN_OR_RETURN(decl, expr)                                                                              \
  auto MOAT_STATUS_CAT(moat_statusor_, __LINE__) = (expr);                                                        \
  if (!MOAT_STATUS_CAT(moat_statusor_, __LINE__).ok()) return MOAT_STATUS_CAT(moat_statusor_, __LINE__).status(); \
  decl = std::move(MOAT_STATUS_CAT(moat_statusor_, __LINE__)).value()

#endif  // MOAT_RUNSC_ERROR_ERROR_H_
