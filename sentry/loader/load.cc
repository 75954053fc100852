// The second step of execve: mappings, stack, auxiliary vector.
#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "sentry/loader/initial_stack.h"
#include "sentry/loader/loader.h"

namespace moat {
namespace {

// Where position-independent programs go (Linux's ELF_ET_DYN_BASE: two thirds of the address space).
constexpr GuestAddr kProgramBase = 0x555555554000;
constexpr uint64_t kMmapRandomPages = 1ull << 28;
constexpr uint64_t kStackRandomPages = 0x3fffff;
constexpr uint64_t kBrkRandom = 0x02000000;
// The stack area at the start, below what the arguments take.
constexpr uint64_t kStackSlack = 128 << 10;
constexpr uint64_t kMinStackGap = 128 << 20;

uint64_t RandomPages(const ImageIdentity& identity, int index, uint64_t pages) {
  return identity.randomize ? identity.random[index] % pages * kPageSize : 0;
}

struct Placed {
  uint64_t bias = 0;
  MmImage extents;          // code and data fields only
  GuestAddr image_end = 0;  // of the last segment, not rounded
};

Result<void> MapSegment(ExecutableSource& file, const RefPtr<Mappable>& mappable, const ElfSegment& segment,
                        uint64_t bias, MemoryManager& mm, const MmLimits& limits, Context* caller) {
  const GuestAddr vaddr = segment.vaddr + bias;
  const GuestAddr start = PageFloor(vaddr);
  const GuestAddr file_end = vaddr + segment.file_size;
  const GuestAddr end = PageCeil(vaddr + segment.mem_size);
  GuestAddr anonymous = start;
  MmapRequest request;
  request.prot = segment.prot;
  if (segment.file_size != 0) {
    request.addr = start;
    request.length = file_end - start;
    request.flags = MAP_PRIVATE | MAP_FIXED;
    request.mappable = mappable;
    request.offset = segment.file_offset - (vaddr - start);
    request.source = file.mapping_source();
    TRY(mm.Mmap(request, limits, caller));
    anonymous = PageCeil(file_end);
  }
  if (segment.mem_size > segment.file_size) {
    // The rest of the last page of the file belongs to the bss. A read-only one cannot have a bss worth clearing.
    const uint64_t tail = std::min(anonymous, vaddr + segment.mem_size) - std::min(anonymous, file_end);
    if (segment.file_size != 0 && tail != 0 && (segment.prot & PROT_WRITE) != 0) {
      const uint64_t page_rest = anonymous - file_end;
      if (mm.ZeroOut(file_end, page_rest) != page_rest) return kEFAULT;
    }
    if (end > anonymous) {
      request = MmapRequest{};
      request.addr = anonymous;
      request.length = end - anonymous;
      request.prot = segment.prot;
      request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
      TRY(mm.Mmap(request, limits, caller));
    }
  }
  return {};
}

// The address that a free stretch of `length` bytes gets from the mmap area, `align`ed.
Result<GuestAddr> ChooseRoom(MemoryManager& mm, uint64_t length, uint64_t align, const MmLimits& limits,
                             Context* caller) {
  uint64_t padded;
  if (__builtin_add_overflow(length, align - kPageSize, &padded)) return kENOMEM;
  MmapRequest request;
  request.length = padded;
  request.prot = PROT_NONE;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const GuestAddr found = TRY(mm.Mmap(request, limits, caller));
  TRY(mm.Munmap(found, padded, caller));
  return (found + align - 1) & ~(align - 1);
}

Result<Placed> PlaceImage(const ElfImage& image, ExecutableSource& file, GuestAddr base, MemoryManager& mm,
                          const MmLimits& limits, Context* caller) {
  Placed placed;
  placed.bias = image.position_independent ? base - image.min_vaddr : 0;
  const RefPtr<Mappable> mappable = TRY(file.GetMappable());
  MmImage& extents = placed.extents;
  extents.code_start = ~0ull;
  for (const ElfSegment& s : image.segments) {
    TRY(MapSegment(file, mappable, s, placed.bias, mm, limits, caller));
    const GuestAddr start = s.vaddr + placed.bias, file_end = start + s.file_size;
    extents.code_start = std::min(extents.code_start, start);
    extents.data_start = std::max(extents.data_start, start);
    if ((s.prot & PROT_EXEC) != 0) extents.code_end = std::max(extents.code_end, file_end);
    extents.data_end = std::max(extents.data_end, file_end);
    placed.image_end = std::max(placed.image_end, start + s.mem_size);
  }
  return placed;
}

}  // namespace

Result<LoadedImage> LoadImage(const PreparedImage& image, const ImageIdentity& identity, MemoryManager& mm,
                              const MmLimits& limits, Context* caller) {
  const MmEnvironment& env = mm.environment();
  const MemoryManager::Batch batch(mm);
  const GuestAddr stack_top = env.max_address - RandomPages(identity, 0, kStackRandomPages);
  const uint64_t gap = std::clamp(limits.stack, kMinStackGap, env.max_address / 6 * 5) + kStackGuardGap +
                       (identity.randomize ? kStackRandomPages * kPageSize : 0);
  // Leave room for the program's own base below, whatever the limit on the stack says.
  const GuestAddr lowest = env.max_address / 6;
  const GuestAddr highest = gap < env.max_address - lowest ? env.max_address - gap : lowest;
  const GuestAddr mmap_base = std::max(lowest, highest - std::min(highest, RandomPages(identity, 1, kMmapRandomPages)));
  mm.SetLayout(mmap_base, 0);

  // The stack first, so that nothing else takes its place.
  InitialStack stack(image, identity);
  const uint64_t stack_size = PageCeil(stack.MaxSize()) + std::min(PageFloor(limits.stack), kStackSlack) + kPageSize;
  MmapRequest request;
  request.addr = stack_top - stack_size;
  request.length = stack_size;
  request.prot = PROT_READ | PROT_WRITE | (image.program.executable_stack ? PROT_EXEC : 0);
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN;
  request.kind = VmaKind::kStack;
  TRY(mm.Mmap(request, limits, caller));

  const ElfImage& program = image.program;
  GuestAddr base = 0;
  if (program.position_independent) {
    const uint64_t align = program.align;
    if (image.interpreter) {
      base = (kProgramBase + RandomPages(identity, 2, kMmapRandomPages)) & ~(align - 1);
    } else {
      base = TRY(ChooseRoom(mm, program.max_vaddr - program.min_vaddr, align, limits, caller));
    }
  } else if (program.min_vaddr < env.min_address || program.max_vaddr > env.max_address) {
    return kENOMEM;
  }
  const Placed placed = TRY(PlaceImage(program, *image.executable, base, mm, limits, caller));
  GuestAddr entry = program.entry + placed.bias;
  uint64_t interpreter_base = 0;
  if (image.interpreter) {
    const ElfImage& linker = image.interpreter_image;
    GuestAddr linker_base = 0;
    if (linker.position_independent)
      linker_base = TRY(ChooseRoom(mm, linker.max_vaddr - linker.min_vaddr, linker.align, limits, caller));
    const Placed linked = TRY(PlaceImage(linker, *image.interpreter, linker_base, mm, limits, caller));
    interpreter_base = linked.bias;
    entry = linker.entry + linked.bias;
  }
  if (entry >= env.max_address) return image.interpreter ? kELIBBAD : kEINVAL;

  MmImage about = placed.extents;
  // A static position-independent program sits in the mmap area: its heap goes where others' programs are.
  const bool apart = program.position_independent && !image.interpreter;
  about.brk_start = PageCeil(apart ? kProgramBase : placed.image_end) +
                    (identity.randomize ? PageFloor(identity.random[3] % kBrkRandom) : 0);
  mm.SetBrkStart(about.brk_start);
  about.vdso_base = TRY(MapVdso(mm, limits, caller));

  InitialStack::Aux aux;
  aux.vdso = about.vdso_base;
  aux.headers = program.header_vaddr + placed.bias;
  aux.header_count = program.header_count;
  aux.base = interpreter_base;
  aux.entry = program.entry + placed.bias;
  LoadedImage loaded;
  loaded.entry = entry;
  loaded.stack_pointer = TRY(stack.Write(mm, stack_top, aux, &about));
  mm.set_image(std::move(about));
  return loaded;
}

}  // namespace moat
