#include "runsc/error/error.h"

#include <string.h>

#include <cctype>

#include "absl/strings/cord.h"

namespace moat {
namespace {
constexpr char kExitCodePayload[] = "moat/exit-code";
}  // namespace

std::string ErrnoText(int error) {
  const char* text = strerrordesc_np(error);
  std::string out = text != nullptr ? text : fmt::format("errno {}", error);
  // Go's spelling: managers look for lower-case texts. Acronyms stay.
  if (out.size() > 1 && std::islower(static_cast<unsigned char>(out[1])))
    out[0] = static_cast<char>(std::tolower(out[0]));
  return out;
}

absl::Status WithExitCode(absl::Status s, int code) {
  s.SetPayload(kExitCodePayload, absl::Cord(std::to_string(code)));
  return s;
}

int ExitCodeOf(const absl::Status& s, int fallback) {
  auto payload = s.GetPayload(kExitCodePayload);
  return payload ? std::stoi(std::string(*payload)) : fallback;
}

absl::Status Annotate(const absl::Status& s, const std::string& context) {
  absl::Status out(s.code(), context + ": " + Text(s));
  s.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { out.SetPayload(url, payload); });
  return out;
}

int ExecExitCode(Errno e) { return e == kENOENT || e == kENOTDIR || e == kELOOP || e == kENAMETOOLONG ? 127 : 126; }

}  // namespace moat
