// The program loader: from an executable file to a ready address space. Two steps, because execve(2) must be able to
// fail without harm, and because the set-user-ID bits of the file that is finally run decide the credentials:
//   PreparedImage image = TRY(PrepareImage(request, opener));      reads headers, follows #! lines, opens PT_INTERP
//   ... credentials from image.executable ...
//   LoadedImage loaded = TRY(LoadImage(image, identity, mm, limits, caller));    maps into a fresh MemoryManager
// A failed LoadImage leaves a half-filled MemoryManager: drop it.
// Thread-safe: no shared state but the vDSO. Source: execve(2), elf(5), getauxval(3), vdso(7); the System V ABI.
#ifndef MOAT_SENTRY_LOADER_LOADER_H_
#define MOAT_SENTRY_LOADER_LOADER_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/platform.h"
#include "sentry/loader/elf_image.h"
#include "sentry/loader/executable_source.h"
#include "sentry/loader/vdso.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

struct ImageRequest {
  RefPtr<ExecutableSource> executable;
  // As given to execve, or /dev/fd/N(/path) for execveat: what a script's interpreter is told to run.
  std::string filename;
  std::vector<std::string> argv;
  std::vector<std::string> envp;
  // With execveat(AT_EMPTY_PATH) on a close-on-exec descriptor a script's interpreter could not open it: kENOENT.
  bool filename_inaccessible = false;
};

struct PreparedImage {
  RefPtr<ExecutableSource> executable;  // the file that runs: the interpreter of a script, not the script
  std::string filename;                 // AT_EXECFN
  std::vector<std::string> argv;        // rewritten by #! lines
  std::vector<std::string> envp;
  ElfImage program;
  RefPtr<ExecutableSource> interpreter;  // PT_INTERP; null for static programs
  ElfImage interpreter_image;
};

// Whom the new program runs as, as it will see itself.
struct ImageIdentity {
  uint32_t uid = 0, euid = 0, gid = 0, egid = 0;
  bool secure = false;    // AT_SECURE
  bool randomize = true;  // false with personality ADDR_NO_RANDOMIZE
  // Fresh random numbers: four for the layout, two for AT_RANDOM, two in reserve.
  std::array<uint64_t, 8> random{};
};

struct LoadedImage {
  GuestAddr entry = 0;
  GuestAddr stack_pointer = 0;
};

// argv and envp together may take this, and one string that (execve(2), "Limits on size of arguments").
inline constexpr uint64_t kMaxArgStrlen = 32 * kPageSize;
inline constexpr uint64_t kMaxArgTotal = 6 << 20;
// The bytes that argv and envp may take under RLIMIT_STACK `stack`, pointers included.
uint64_t ArgumentLimit(uint64_t stack);

// kENOEXEC, kELOOP (nested #!), kENOENT, kEACCES, kE2BIG, kELIBBAD, kEIO, kEINVAL, kENOMEM.
Result<PreparedImage> PrepareImage(ImageRequest request, const MmLimits& limits, ExecutableOpener& opener);

// `mm` is fresh. Sets its layout, image and mappings. kENOMEM, kEINVAL, kE2BIG, kEFAULT.
Result<LoadedImage> LoadImage(const PreparedImage& image, const ImageIdentity& identity, MemoryManager& mm,
                              const MmLimits& limits, Context* caller);

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_LOADER_H_
