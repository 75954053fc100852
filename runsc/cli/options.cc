#include "runsc/cli/options.h"

#include <stdio.h>

#include <CLI/CLI.hpp>
#include <deque>

#include "runsc/error/error.h"

namespace moat {

struct OptionParser::Impl {
  CLI::App app;
  std::string command, usage;
  std::deque<std::string> ignored_values;
  std::deque<bool> ignored_flags;
  Impl(std::string summary, std::string name) : app(std::move(summary), std::move(name)) {}
};

OptionParser::OptionParser(std::string command, std::string summary, std::string usage)
    : impl_(std::make_unique<Impl>(std::move(summary), command)) {
  impl_->command = std::move(command);
  impl_->usage = std::move(usage);
  impl_->app.prefix_command();
}

OptionParser::~OptionParser() = default;

OptionParser& OptionParser::Flag(const char* names, bool* target, const char* help) {
  impl_->app.add_flag(names, *target, help);
  return *this;
}

OptionParser& OptionParser::Text(const char* names, std::string* target, const char* help) {
  impl_->app.add_option(names, *target, help);
  return *this;
}

OptionParser& OptionParser::Texts(const char* names, std::vector<std::string>* target, const char* help) {
  // One value an occurrence: "--env A=1 CMD" must not swallow CMD.
  impl_->app.add_option(names, *target, help)->expected(1)->take_all();
  return *this;
}

OptionParser& OptionParser::Number(const char* names, std::optional<int64_t>* target, const char* help) {
  impl_->app.add_option_function<int64_t>(
      names, [target](const int64_t& v) { *target = v; }, help);
  return *this;
}

OptionParser& OptionParser::Ignored(const char* names, bool takes_value) {
  if (takes_value) {
    impl_->app.add_option(names, impl_->ignored_values.emplace_back(), "accepted, without effect");
  } else {
    impl_->app.add_flag(names, impl_->ignored_flags.emplace_back(), "accepted, without effect");
  }
  return *this;
}

absl::StatusOr<std::vector<std::string>> OptionParser::Parse(std::vector<std::string> args, int least, int most) {
  CLI::App& app = impl_->app;
  std::vector<std::string> reversed(args.rbegin(), args.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    std::string help = app.help();
    size_t options = help.find("Options:");
    printf("usage: %s [OPTIONS] %s\n%s\n\n%s", impl_->command.c_str(), impl_->usage.c_str(),
           app.get_description().c_str(), options == help.npos ? "" : help.c_str() + options);
    return absl::CancelledError("");
  } catch (const CLI::ArgumentMismatch& e) {
    return Invalid("{}: flag needs an argument: {} (see {} --help)", impl_->command, e.what(), impl_->command);
  } catch (const CLI::Error& e) {
    return Invalid("{}: {} (see {} --help)", impl_->command, e.what(), impl_->command);
  }
  std::vector<std::string> rest = app.remaining();
  // The parser stops at what it does not know and leaves it, for commands with arguments of their own.
  bool marked = !rest.empty() && rest.front() == "--";
  if (!marked && !rest.empty() && rest.front().size() > 1 && rest.front()[0] == '-')
    return Invalid("{}: unknown flag {} (see {} --help)", impl_->command, rest.front(), impl_->command);
  if (marked) rest.erase(rest.begin());
  if (static_cast<int>(rest.size()) < least || (most >= 0 && static_cast<int>(rest.size()) > most))
    return Invalid("{}: expected arguments: {} (see {} --help)", impl_->command, impl_->usage, impl_->command);
  return rest;
}

}  // namespace moat
