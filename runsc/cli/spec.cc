// runsc spec: a config.json to begin with.
#include <fcntl.h>
#include <unistd.h>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/error/error.h"
#include "runsc/oci/parse.h"

namespace moat {

absl::StatusOr<int> RunSpec(const GlobalOptions&, std::vector<std::string> args) {
  bool rootless = false;
  std::string bundle = ".";
  OptionParser parser("runsc spec", "Writes a config.json to begin with.", "");
  parser.Flag("--rootless", &rootless, "for a container without root")
      .Text("-b,--bundle", &bundle, "where to (default .)");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 0, 0));
  std::string path = bundle + "/config.json";
  ScopedFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return HostFailed("create {}", path);
  std::string text = oci::DefaultSpecJson(rootless, geteuid(), getegid());
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return HostFailed("write {}", path);
  return 0;
}

}  // namespace moat
