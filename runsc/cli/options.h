// Options of one command: a thin face of CLI11, which only options.cc includes (it is large). As in Go's flag
// packages, options end at the first argument that is none, so that a guest's own options need no "--".
#ifndef MOAT_RUNSC_CLI_OPTIONS_H_
#define MOAT_RUNSC_CLI_OPTIONS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace moat {

class OptionParser {
 public:
  // `usage`: what follows the options, "CONTAINER-ID [SIGNAL]".
  OptionParser(std::string command, std::string summary, std::string usage);
  ~OptionParser();

  // `names`: "-f,--force". The targets must outlive Parse.
  OptionParser& Flag(const char* names, bool* target, const char* help);
  // A flag that also takes a value: --rootless=auto. The text is "true" when it has none.
  OptionParser& Text(const char* names, std::string* target, const char* help);
  OptionParser& Texts(const char* names, std::vector<std::string>* target, const char* help);
  OptionParser& Number(const char* names, std::optional<int64_t>* target, const char* help);
  // Accepted for compatibility, with or without effect on the host: the help says so.
  OptionParser& Ignored(const char* names, bool takes_value);

  // Answers the arguments after the options (a leading "--" dropped). A cancelled status means that --help was
  // printed. Fewer than `least` or more than `most` (-1: any number) arguments are an error.
  absl::StatusOr<std::vector<std::string>> Parse(std::vector<std::string> args, int least, int most);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moat

#endif  // MOAT_RUNSC_CLI_OPTIONS_H_
