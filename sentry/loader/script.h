// The first line of an interpreter script, "#!interpreter [optional argument]". Source: execve(2), "Interpreter
// scripts".
#ifndef MOAT_SENTRY_LOADER_SCRIPT_H_
#define MOAT_SENTRY_LOADER_SCRIPT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "platform/base/result.h"

namespace moat {

// What the kernel looks at of a file before it knows what it is.
inline constexpr size_t kScriptHeadBytes = 256;

struct ScriptLine {
  std::string interpreter;
  std::optional<std::string> argument;  // all of the rest of the line
};

// `head`: the file's first kScriptHeadBytes bytes, fewer for a shorter file. Nullopt when it is no script; kENOEXEC
// when the line names no interpreter or does not end within the head.
Result<std::optional<ScriptLine>> ParseScriptLine(std::string_view head);

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_SCRIPT_H_
