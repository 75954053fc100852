#include "sentry/loader/script.h"

namespace moat {

Result<std::optional<ScriptLine>> ParseScriptLine(std::string_view head) {
  if (!head.starts_with("#!")) return std::optional<ScriptLine>{};
  const bool whole_file = head.size() < kScriptHeadBytes;
  std::string_view line = head.substr(2, kScriptHeadBytes - 3);
  constexpr std::string_view kBlank = " \t";
  constexpr std::string_view kTerminators(" \t\0", 3);

  const size_t newline = line.find('\n');
  const size_t start = line.substr(0, newline).find_first_not_of(kBlank);
  if (start == std::string_view::npos) return kENOEXEC;
  // Without an end of line in sight an argument may be cut off, but not the name.
  if (newline == std::string_view::npos && !whole_file && line.find_first_of(kTerminators, start) == line.npos)
    return kENOEXEC;
  line = line.substr(start, newline == std::string_view::npos ? newline : newline - start);
  line = line.substr(0, line.find('\0'));
  line = line.substr(0, line.find_last_not_of(kBlank) + 1);
  if (line.empty()) return kENOEXEC;

  ScriptLine script;
  const size_t blank = line.find_first_of(kBlank);
  script.interpreter = line.substr(0, blank);
  if (blank != std::string_view::npos) script.argument = line.substr(line.find_first_not_of(kBlank, blank));
  return std::optional<ScriptLine>(std::move(script));
}

}  // namespace moat
