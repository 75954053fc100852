// The lists of host calls as Markdown.
#include <fmt/core.h>

#include <map>
#include <string>

#include "runsc/seccomp/filters.h"

namespace moat {
namespace {

std::string Escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

void AppendTable(const FilterProgram& filter, std::string_view platform, std::string& out) {
  out += fmt::format("### {}{}: {} calls\n\n| call | arguments | who | why |\n|---|---|---|---|\n", filter.process,
                     platform.empty() ? "" : fmt::format(" on {}", platform), filter.AllowedCount());
  std::map<int, std::string> lines;
  for (const HostCallRow& row : filter.rows) {
    if (row.number < 0 || !row.refusal.empty()) continue;
    std::string arguments = row.conditions.empty() ? "any" : fmt::format("`{}`", Escaped(row.conditions));
    lines[row.number] += fmt::format("| `{}` | {} | {} | {} |\n", row.name, arguments, row.source, Escaped(row.reason));
  }
  for (const auto& [number, text] : lines) out += text;
  std::string refused;
  for (const HostCallRow& row : filter.rows) {
    if (!row.refusal.empty())
      refused += fmt::format("| `{}` | {} | {} |\n", row.name, row.refusal, Escaped(row.reason));
  }
  if (!refused.empty())
    out += "\nNever made; the host kernel answers at once:\n\n| call | answer | why |\n|---|---|---|\n" + refused;
  out += "\n";
}

}  // namespace

std::string HostCallTables() {
  std::string out;
  for (const PlatformFilters& f : AllPlatformFilters()) {
    AppendTable(f.sentry, f.platform, out);
    AppendTable(f.stub, f.platform, out);
  }
  AppendTable(kGoferFilter, "", out);
  return out;
}

}  // namespace moat
