#include "sentry/loader/vdso.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>

#include "platform/memory/safe_copy.h"
#include "sentry/mm/shared_memory.h"

extern "C" const char moat_vdso_start[];
extern "C" const char moat_vdso_end[];

namespace moat {

Result<RefPtr<Mappable>> MakeVdso(MemoryFile& memory, CommitAccount& commit) {
  const size_t size = static_cast<size_t>(moat_vdso_end - moat_vdso_start);
  RefPtr<SharedMemory> code = TRY(SharedMemory::Create(memory, commit, PageCeil(size), true));
  for (uint64_t done = 0; done < size;) {
    const HostPages pages = TRY(code->Translate(done, PageCeil(size) - done, true));
    const uint64_t n =
        std::min({size - done, pages.range.length(), MemoryFile::kChunk - pages.range.start % MemoryFile::kChunk});
    std::byte* to = TRY(memory.Pointer(pages.range.start));
    if (SafeCopy(to, moat_vdso_start + done, n) != n) return kENOMEM;
    done += n;
  }
  return RefPtr<Mappable>(std::move(code));
}

Result<GuestAddr> MapVdso(MemoryManager& mm, const MmLimits& limits, Context* caller) {
  const MmEnvironment& env = mm.environment();
  if (!env.vdso) return GuestAddr{0};
  MmapRequest request;
  request.mappable = env.vdso;
  request.source = MakeRef<NamedMappingSource>("[vdso]");
  request.length = static_cast<uint64_t>(moat_vdso_end - moat_vdso_start);
  request.prot = PROT_READ | PROT_EXEC;
  request.flags = MAP_PRIVATE;
  request.kind = VmaKind::kVdso;
  return mm.Mmap(request, limits, caller);
}

}  // namespace moat
