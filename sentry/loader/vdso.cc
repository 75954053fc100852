#include "sentry/loader/vdso.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>

#include "platform/memory/safe_copy.h"
#include "sentry/loader/vdso_clock.h"
#include "sentry/mm/shared_memory.h"

extern "C" const char moat_vdso_start[];
extern "C" const char moat_vdso_end[];

namespace moat {

Result<void> MakeVdso(MmEnvironment* env) {
  MemoryFile& memory = *env->memory;
  const size_t size = static_cast<size_t>(moat_vdso_end - moat_vdso_start);
  RefPtr<SharedMemory> object = TRY(SharedMemory::Create(memory, *env->commit, kPageSize + PageCeil(size), true));
  const HostPages pages = TRY(object->Translate(0, object->length(), true));
  for (uint64_t done = 0; done < size;) {
    const uint64_t at = pages.range.start + kPageSize + done;
    const uint64_t n = std::min(size - done, MemoryFile::kChunk - at % MemoryFile::kChunk);
    if (SafeCopy(TRY(memory.Pointer(at)), moat_vdso_start + done, n) != n) return kENOMEM;
    done += n;
  }
  // Touched here once, so that later stores to it cannot fail.
  std::byte* clock_page = TRY(memory.Pointer(pages.range.start));
  if (SafeZero(clock_page, kPageSize) != kPageSize) return kENOMEM;
  env->clock = MakeRef<VdsoClock>(object, reinterpret_cast<MoatClockPage*>(clock_page));
  env->vdso = std::move(object);
  return {};
}

Result<GuestAddr> MapVdso(MemoryManager& mm, const MmLimits& limits, Context* caller) {
  const MmEnvironment& env = mm.environment();
  if (!env.vdso) return GuestAddr{0};
  const uint64_t code_size = PageCeil(static_cast<uint64_t>(moat_vdso_end - moat_vdso_start));
  MmapRequest request;
  request.mappable = env.vdso;
  request.source = MakeRef<NamedMappingSource>("[vvar]");
  request.length = kPageSize + code_size;
  request.prot = request.max_prot = PROT_READ;
  request.flags = MAP_SHARED;
  request.kind = VmaKind::kVvar;
  const GuestAddr base = TRY(mm.Mmap(request, limits, caller));
  // Private, so that a debugger of the guest's can set breakpoints.
  request.source = MakeRef<NamedMappingSource>("[vdso]");
  request.addr = base + kPageSize;
  request.length = code_size;
  request.offset = kPageSize;
  request.prot = PROT_READ | PROT_EXEC;
  request.max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
  request.flags = MAP_PRIVATE | MAP_FIXED;
  request.kind = VmaKind::kVdso;
  return mm.Mmap(request, limits, caller);
}

}  // namespace moat
