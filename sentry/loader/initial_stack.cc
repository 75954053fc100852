#include "sentry/loader/initial_stack.h"

#include <elf.h>
#include <sys/auxv.h>

#include <cstring>
#include <utility>
#include <vector>

#include "sentry/loader/loader.h"

namespace moat {
namespace {

// linux/auxvec.h; newer than the C library's elf.h.
constexpr uint64_t kAtRseqFeatureSize = 27, kAtRseqAlign = 28, kAtMinSigStackSize = 51;
// struct rseq up to and with mm_cid (rseq(2)); its alignment.
constexpr uint64_t kRseqFeatureSize = 28, kRseqAlign = 32;
constexpr uint64_t kClockTicks = 100;
constexpr uint64_t kMaxAuxEntries = 32;
constexpr char kPlatform[] = "x86_64";
constexpr uint64_t kRandomBytes = 16;

}  // namespace

uint64_t InitialStack::StringBytes() const {
  uint64_t n = image_.filename.size() + 1;
  for (const std::string& s : image_.argv) n += s.size() + 1;
  for (const std::string& s : image_.envp) n += s.size() + 1;
  return n;
}

uint64_t InitialStack::MaxSize() const {
  const uint64_t pointers = 1 + image_.argv.size() + 1 + image_.envp.size() + 1;
  return StringBytes() + sizeof kPlatform + kRandomBytes + (pointers + 2 * kMaxAuxEntries) * sizeof(uint64_t) +
         512;  // alignment, random displacement, the zero word at the top
}

Result<GuestAddr> InitialStack::Write(MemoryManager& mm, GuestAddr top, const Aux& aux, MmImage* about) const {
  // Strings, upwards: arguments, environment, file name; then a zero word that ends the stack.
  std::string strings;
  strings.reserve(StringBytes() + sizeof(uint64_t));
  const GuestAddr strings_at = top - sizeof(uint64_t) - StringBytes();
  std::vector<uint64_t> argv, envp;
  auto add = [&](const std::string& s) {
    const GuestAddr at = strings_at + strings.size();
    strings.append(s.c_str(), s.size() + 1);
    return at;
  };
  about->arg_start = strings_at;
  for (const std::string& s : image_.argv) argv.push_back(add(s));
  about->arg_end = about->env_start = strings_at + strings.size();
  for (const std::string& s : image_.envp) envp.push_back(add(s));
  about->env_end = strings_at + strings.size();
  const GuestAddr filename = add(image_.filename);
  strings.append(sizeof(uint64_t), '\0');

  // Below: the platform's name, the random bytes, and a random displacement against guessed stack addresses.
  GuestAddr at = strings_at & ~uint64_t{15};
  if (identity_.randomize) at -= (identity_.random[6] % 16) * 16;
  const GuestAddr platform = at - 16;
  const GuestAddr random = platform - kRandomBytes;
  char block[16 + kRandomBytes] = {};
  memcpy(block, &identity_.random[4], kRandomBytes);
  memcpy(block + kRandomBytes, kPlatform, sizeof kPlatform);

  std::vector<uint64_t> auxv;
  auto put = [&auxv](uint64_t type, uint64_t value) {
    auxv.push_back(type);
    auxv.push_back(value);
  };
  if (aux.vdso != 0) put(AT_SYSINFO_EHDR, aux.vdso);
  // The signal frame holds the CPU's extended state, so these are the host CPU's.
  put(kAtMinSigStackSize, getauxval(kAtMinSigStackSize));
  put(AT_HWCAP, getauxval(AT_HWCAP));
  put(AT_PAGESZ, kPageSize);
  put(AT_CLKTCK, kClockTicks);
  put(AT_PHDR, aux.headers);
  put(AT_PHENT, sizeof(Elf64_Phdr));
  put(AT_PHNUM, aux.header_count);
  put(AT_BASE, aux.base);
  put(AT_FLAGS, 0);
  put(AT_ENTRY, aux.entry);
  put(AT_UID, identity_.uid);
  put(AT_EUID, identity_.euid);
  put(AT_GID, identity_.gid);
  put(AT_EGID, identity_.egid);
  put(AT_SECURE, identity_.secure ? 1 : 0);
  put(AT_RANDOM, random);
  put(AT_HWCAP2, getauxval(AT_HWCAP2));
  put(AT_EXECFN, filename);
  put(AT_PLATFORM, platform);
  // The host kernel fills the area.
  if (const uint64_t size = getauxval(kAtRseqFeatureSize); size != 0) {
    put(kAtRseqFeatureSize, std::min(size, kRseqFeatureSize));
    put(kAtRseqAlign, kRseqAlign);
  }
  put(AT_NULL, 0);

  std::vector<uint64_t> words;
  words.reserve(argv.size() + envp.size() + auxv.size() + 3);
  words.push_back(argv.size());
  words.insert(words.end(), argv.begin(), argv.end());
  words.push_back(0);
  words.insert(words.end(), envp.begin(), envp.end());
  words.push_back(0);
  words.insert(words.end(), auxv.begin(), auxv.end());
  const uint64_t bytes = words.size() * sizeof(uint64_t);
  const GuestAddr sp = (random - bytes) & ~uint64_t{15};

  if (mm.CopyOut(strings_at, strings.data(), strings.size()) != strings.size()) return kEFAULT;
  if (mm.CopyOut(random, block, sizeof block) != sizeof block) return kEFAULT;
  if (mm.CopyOut(sp, words.data(), bytes) != bytes) return kEFAULT;
  about->stack_start = sp;
  about->auxv = std::move(auxv);
  return sp;
}

}  // namespace moat
