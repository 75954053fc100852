// ElfImage: the parsed and checked headers of one ELF64 file. Everything in it was validated against overflow, so
// that mapping it needs no more checks than the file's own end. Source: elf(5); System V ABI, "Program Header".
#ifndef MOAT_SENTRY_LOADER_ELF_IMAGE_H_
#define MOAT_SENTRY_LOADER_ELF_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "platform/base/result.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

class ExecutableSource;

struct ElfSegment {
  uint64_t vaddr = 0, mem_size = 0;
  uint64_t file_offset = 0, file_size = 0;
  int prot = 0;
};

struct ElfImage {
  bool position_independent = false;  // ET_DYN
  uint64_t entry = 0;                 // before the load bias
  uint64_t header_vaddr = 0;          // of the program headers, 0 when no segment holds them
  uint16_t header_count = 0;
  uint64_t min_vaddr = 0, max_vaddr = 0;  // page-rounded extent of all segments
  uint64_t align = kPageSize;             // the greatest p_align, a power of two
  bool executable_stack = false;
  std::string interpreter;  // PT_INTERP, empty without
  std::vector<ElfSegment> segments;

  // kENOEXEC when it is no program for this machine; kEINVAL for an impossible layout; kEIO for a short file.
  // `as_interpreter`: errors are those of a bad PT_INTERP (kELIBBAD).
  static Result<ElfImage> Parse(ExecutableSource& file, bool as_interpreter);
};

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_ELF_IMAGE_H_
