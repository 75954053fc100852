// runsc host-syscalls: the allow-lists as the processes load them.
#include <stdio.h>

#include <map>
#include <nlohmann/json.hpp>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/error/error.h"
#include "runsc/seccomp/filters.h"

namespace moat {
namespace {

struct Call {
  std::string_view name;
  std::vector<std::string_view> limits;  // one an alternative
  std::string reasons;
  bool any = false;
};

// By call number: rows of one call are alternatives.
std::map<int, Call> Allowed(const FilterProgram& filter) {
  std::map<int, Call> calls;
  for (const HostCallRow& row : filter.rows) {
    if (!row.refusal.empty() || row.number < 0) continue;
    Call& call = calls[row.number];
    call.name = row.name;
    if (row.conditions.empty()) call.any = true;
    call.limits.push_back(row.conditions);
    if (!call.reasons.empty()) call.reasons += "; ";
    call.reasons += fmt::format("{}: {}", row.source, row.reason);
  }
  return calls;
}

void PrintText(const FilterProgram& filter) {
  std::map<int, Call> calls = Allowed(filter);
  printf("%s: %zu host calls\n", filter.process.data(), calls.size());
  for (const auto& [number, call] : calls) {
    std::string limits;
    if (!call.any) {
      for (std::string_view l : call.limits) limits += fmt::format("{}[{}]", limits.empty() ? "" : " or ", l);
    }
    printf("  %-18s %s%s(%s)\n", call.name.data(), limits.c_str(), limits.empty() ? "" : " ", call.reasons.c_str());
  }
  std::string refused;
  for (const HostCallRow& row : filter.rows) {
    if (!row.refusal.empty()) refused += fmt::format(" {}={}", row.name, row.refusal);
  }
  if (!refused.empty()) printf("  never made, answered at once:%s\n", refused.c_str());
}

nlohmann::ordered_json ToJson(const FilterProgram& filter) {
  nlohmann::ordered_json calls = nlohmann::ordered_json::array(), refused = nlohmann::ordered_json::array();
  for (const auto& [number, call] : Allowed(filter)) {
    nlohmann::ordered_json j = {{"name", call.name}, {"number", number}};
    if (!call.any) j["limits"] = call.limits;
    j["reason"] = call.reasons;
    calls.push_back(std::move(j));
  }
  for (const HostCallRow& row : filter.rows) {
    if (!row.refusal.empty()) refused.push_back({{"name", row.name}, {"errno", row.refusal}, {"reason", row.reason}});
  }
  size_t count = calls.size();
  return {{"count", count}, {"calls", std::move(calls)}, {"refused", std::move(refused)}};
}

}  // namespace

absl::StatusOr<int> RunHostSyscalls(const GlobalOptions& global, std::vector<std::string> args) {
  bool json = false, markdown = false;
  OptionParser parser(
      "runsc host-syscalls",
      "Prints the host calls that sentry, gofer and stubs may make on the platform that --platform names.", "");
  parser.Flag("--json", &json, "as JSON").Flag("--markdown", &markdown, "as the tables of docs/host-syscalls.md");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 0, 0));
  ASSIGN_OR_RETURN(std::string platform, ChoosePlatform(global.platform));
  const PlatformFilters& chosen = FiltersOf(platform);
  const FilterProgram* filters[] = {&chosen.sentry, &kGoferFilter, &chosen.stub};
  if (markdown) {
    fputs(HostCallTables().c_str(), stdout);
  } else if (json) {
    nlohmann::ordered_json out = {{"platform", platform}};
    for (const FilterProgram* f : filters) out[std::string(f->process)] = ToJson(*f);
    printf("%s\n", out.dump(2).c_str());
  } else {
    printf("platform %s\n", platform.c_str());
    for (const FilterProgram* f : filters) PrintText(*f);
  }
  return 0;
}

}  // namespace moat
