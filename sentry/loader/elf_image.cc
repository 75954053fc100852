#include "sentry/loader/elf_image.h"

#include <elf.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "sentry/loader/executable_source.h"

namespace moat {
namespace {

// Linux reads program headers of at most this size.
constexpr size_t kMaxHeaderBytes = 65536;
constexpr uint64_t kMaxPath = 4096;
// No address of a segment may reach beyond the user half of the address space.
constexpr uint64_t kAddressEnd = 1ull << 47;

int ProtOf(uint32_t p_flags) {
  return ((p_flags & PF_R) != 0 ? PROT_READ : 0) | ((p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
         ((p_flags & PF_X) != 0 ? PROT_EXEC : 0);
}

Result<void> ReadExactly(ExecutableSource& file, void* dst, size_t n, uint64_t offset) {
  if (TRY(file.Read(dst, n, offset)) != n) return kEIO;
  return {};
}

Result<std::string> ReadInterpreterPath(ExecutableSource& file, const Elf64_Phdr& header) {
  if (header.p_filesz > kMaxPath || header.p_filesz < 2) return kENOEXEC;
  std::string path(header.p_filesz, '\0');
  TRY(ReadExactly(file, path.data(), path.size(), header.p_offset));
  if (path.back() != '\0') return kENOEXEC;
  path.resize(strlen(path.c_str()));
  return path;
}

Result<ElfSegment> CheckSegment(const Elf64_Phdr& header) {
  uint64_t memory_end, file_end;
  if (header.p_filesz > header.p_memsz || header.p_vaddr >= kAddressEnd || header.p_memsz > kAddressEnd ||
      __builtin_add_overflow(header.p_vaddr, header.p_memsz, &memory_end) || memory_end > kAddressEnd - kPageSize ||
      __builtin_add_overflow(header.p_offset, header.p_filesz, &file_end) || file_end > INT64_MAX - kPageSize)
    return kEINVAL;
  // The page of the file that holds the first byte must be the page of memory that holds it.
  if (header.p_filesz != 0 && header.p_offset % kPageSize != header.p_vaddr % kPageSize) return kEINVAL;
  return ElfSegment{header.p_vaddr, header.p_memsz, header.p_offset, header.p_filesz, ProtOf(header.p_flags)};
}

}  // namespace

Result<ElfImage> ElfImage::Parse(ExecutableSource& file, bool as_interpreter) {
  const Errno no_program = as_interpreter ? kELIBBAD : kENOEXEC;
  Elf64_Ehdr header{};
  const size_t got = TRY(file.Read(&header, sizeof header, 0));
  if (got < SELFMAG || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return no_program;
  if (got < sizeof header) return as_interpreter ? kEIO : kENOEXEC;
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) return no_program;
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return no_program;
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum * sizeof(Elf64_Phdr) > kMaxHeaderBytes)
    return no_program;

  std::vector<Elf64_Phdr> headers(header.e_phnum);
  const size_t header_bytes = headers.size() * sizeof(Elf64_Phdr);
  if (header.e_phoff > INT64_MAX - header_bytes) return no_program;
  if (Result<void> read = ReadExactly(file, headers.data(), header_bytes, header.e_phoff); !read.ok())
    return read.error() == kEIO ? no_program : read.error();

  ElfImage image;
  image.position_independent = header.e_type == ET_DYN;
  image.entry = header.e_entry;
  image.header_count = header.e_phnum;
  image.min_vaddr = ~0ull;
  for (const Elf64_Phdr& h : headers) {
    switch (h.p_type) {
      case PT_INTERP:
        if (!as_interpreter && image.interpreter.empty()) image.interpreter = TRY(ReadInterpreterPath(file, h));
        break;
      case PT_GNU_STACK:
        image.executable_stack = (h.p_flags & PF_X) != 0;
        break;
      case PT_LOAD: {
        if (h.p_memsz == 0) break;
        const ElfSegment s = TRY(CheckSegment(h));
        image.min_vaddr = std::min(image.min_vaddr, PageFloor(s.vaddr));
        image.max_vaddr = std::max(image.max_vaddr, PageCeil(s.vaddr + s.mem_size));
        if (std::has_single_bit(h.p_align)) image.align = std::max<uint64_t>(image.align, h.p_align);
        if (h.p_offset <= header.e_phoff && header.e_phoff - h.p_offset < h.p_filesz)
          image.header_vaddr = header.e_phoff - h.p_offset + h.p_vaddr;
        image.segments.push_back(s);
        break;
      }
      default:  // PT_GNU_PROPERTY, PT_NOTE, PT_TLS, ...: for the program itself
        break;
    }
  }
  if (image.segments.empty()) return as_interpreter ? kELIBBAD : kEINVAL;
  image.align = std::min<uint64_t>(image.align, 1ull << 30);
  return image;
}

}  // namespace moat
