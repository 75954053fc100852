// The first step of execve: from a file name to the program that will really run.
#include <algorithm>

#include "sentry/loader/loader.h"
#include "sentry/loader/script.h"

namespace moat {
namespace {

// How many scripts may name each other (Linux's limit on binary format rewrites).
constexpr int kMaxScriptDepth = 5;

Result<void> CheckArguments(const PreparedImage& image, const MmLimits& limits) {
  const uint64_t limit = ArgumentLimit(limits.stack);
  uint64_t total = image.filename.size() + 1 + (image.argv.size() + image.envp.size()) * sizeof(GuestAddr);
  for (const auto* list : {&image.argv, &image.envp}) {
    for (const std::string& s : *list) {
      if (s.size() + 1 > kMaxArgStrlen) return kE2BIG;
      total += s.size() + 1;
      if (total > limit) return kE2BIG;
    }
  }
  if (total > limit) return kE2BIG;
  return {};
}

}  // namespace

uint64_t ArgumentLimit(uint64_t stack) {
  constexpr uint64_t kArgMax = 32 * kPageSize;  // always granted
  return std::max(std::min(stack / 4, kMaxArgTotal), kArgMax);
}

Result<PreparedImage> PrepareImage(ImageRequest request, const MmLimits& limits, ExecutableOpener& opener) {
  PreparedImage image;
  image.executable = std::move(request.executable);
  image.filename = std::move(request.filename);
  image.argv = std::move(request.argv);
  image.envp = std::move(request.envp);
  // A program without argv[0] has often been an exploit; Linux gives it an empty one since 5.18.
  if (image.argv.empty()) image.argv.emplace_back();
  TRY(CheckArguments(image, limits));

  std::string script_name = image.filename;
  for (int depth = 0;; ++depth) {
    if (depth > kMaxScriptDepth) return kELOOP;
    char head[kScriptHeadBytes];
    const size_t got = TRY(image.executable->Read(head, sizeof head, 0));
    std::optional<ScriptLine> script = TRY(ParseScriptLine(std::string_view(head, got)));
    if (!script) break;
    if (request.filename_inaccessible) return kENOENT;
    RefPtr<ExecutableSource> interpreter = TRY(opener.OpenExecutable(script->interpreter));
    // argv[0] gives way to: interpreter, its argument, the script's name.
    std::vector<std::string> argv;
    argv.push_back(script->interpreter);
    if (script->argument) argv.push_back(std::move(*script->argument));
    argv.push_back(std::move(script_name));
    for (size_t i = 1; i < image.argv.size(); ++i) argv.push_back(std::move(image.argv[i]));
    image.argv = std::move(argv);
    script_name = std::move(script->interpreter);
    image.executable = std::move(interpreter);
    TRY(CheckArguments(image, limits));
  }

  image.program = TRY(ElfImage::Parse(*image.executable, false));
  if (!image.program.interpreter.empty()) {
    image.interpreter = TRY(opener.OpenExecutable(image.program.interpreter));
    image.interpreter_image = TRY(ElfImage::Parse(*image.interpreter, true));
  }
  return image;
}

}  // namespace moat
