#include "sentry/ipc/shm.h"

#include <fmt/format.h>

#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"

#ifndef SHM_DEST
#define SHM_DEST 01000
#define SHM_LOCKED 02000
#endif

namespace moat {
namespace {
int64_t Now() { return RealtimeNow() / kNanosPerSec; }
constexpr uint64_t kMaxSize = uint64_t{1} << 46;  // beyond any address space
}  // namespace

RefPtr<ShmTable> ShmTable::Of(IpcNamespace& ns) {
  RefPtr<RefCounted> table = ns.slot(IpcNamespace::kShm);
  if (!table) table = ns.AttachOnce(IpcNamespace::kShm, MakeRef<ShmTable>(ns.owner()));
  return RefPtr<ShmTable>(static_cast<ShmTable*>(table.get()));
}

void ShmTable::Sweep(std::vector<RefPtr<ShmSegment>>& dropped) {
  std::vector<ShmSegment*> gone;
  for (auto& [index, s] : table_.objects()) {
    if ((s->perm.mode & SHM_DEST) && s->memory->mappings() == 0) gone.push_back(s.get());
  }
  for (ShmSegment* s : gone) dropped.push_back(table_.Remove(*s));
}

Result<int> ShmTable::Get(Task& t, int32_t key, size_t size, int flags) {
  if ((flags & SHM_HUGETLB) != 0) return kEINVAL;
  // Made before the lock; dropped when the key exists.
  RefPtr<ShmSegment> fresh;
  const bool may_create = key == IPC_PRIVATE || (flags & IPC_CREAT);
  Errno failure = kEINVAL;
  if (may_create && size > 0 && size <= kMaxSize) {
    Result<RefPtr<SharedMemory>> memory = SharedMemory::Create(t.kernel().memory_file(), t.kernel().commit_account(),
                                                               PageCeil(size), (flags & SHM_NORESERVE) != 0);
    if (memory.ok()) {
      fresh = MakeRef<ShmSegment>();
      fresh->memory = std::move(*memory);
      fresh->size = size;
      fresh->ctime = Now();
      fresh->creator = t.RootTgid();
    } else {
      failure = memory.error();
    }
  }
  std::vector<RefPtr<ShmSegment>> dropped;
  RefPtr<ShmSegment> made;
  MutexLock lock(table_.mutex());
  Sweep(dropped);
  int id = TRY(table_.Get(
      t.cred(), key, flags,
      [&]() -> Result<RefPtr<ShmSegment>> {
        if (!fresh) return failure;
        made = fresh;
        return fresh;
      },
      [&](ShmSegment& s) -> Result<void> { return size > s.size ? Result<void>(kEINVAL) : Result<void>(); }));
  if (made) {
    Mappable::Identity identity;
    identity.dev_minor = 1;
    identity.ino = static_cast<uint64_t>(id);
    made->memory->set_identity(identity);
  }
  return id;
}

Result<GuestAddr> ShmTable::Attach(Task& t, int id, GuestAddr addr, int flags) {
  MmapRequest request;
  if (addr != 0) {
    if (addr % kPageSize != 0) {
      if (!(flags & SHM_RND)) return kEINVAL;
      addr = PageFloor(addr);
      if (addr == 0 && (flags & SHM_REMAP)) return kEINVAL;
    }
    request.addr = addr;
    if (addr != 0) request.flags = (flags & SHM_REMAP) ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  } else if (flags & SHM_REMAP) {
    return kEINVAL;
  }
  request.flags |= MAP_SHARED;
  request.prot = PROT_READ | ((flags & SHM_RDONLY) ? 0 : PROT_WRITE) | ((flags & SHM_EXEC) ? PROT_EXEC : 0);
  request.max_prot = PROT_READ | PROT_EXEC | ((flags & SHM_RDONLY) ? 0 : PROT_WRITE);
  RefPtr<ShmSegment> segment;
  {
    MutexLock lock(table_.mutex());
    ShmSegment* s = TRY(table_.Find(id));
    uint32_t wanted = (flags & SHM_RDONLY) ? 0444 : 0666;
    if (flags & SHM_EXEC) wanted |= 0111;
    TRY(CheckIpc(t.cred(), s->perm, table_.owner(), wanted));
    segment = RefPtr<ShmSegment>(s);
  }
  request.length = segment->memory->length();
  request.mappable = segment->memory;
  request.source =
      MakeRef<NamedMappingSource>(fmt::format("/SYSV{:08x} (deleted)", static_cast<uint32_t>(segment->perm.key)));
  Result<GuestAddr> at = t.memory().Mmap(request, t.mm_limits(), &t.context());
  if (!at.ok()) return at.error() == kEEXIST ? kEINVAL : at.error();
  MutexLock lock(table_.mutex());
  segment->atime = Now();
  segment->last = t.RootTgid();
  return at;
}

Result<void> ShmTable::Detach(Task& t, GuestAddr addr) {
  if (addr % kPageSize != 0) return kEINVAL;
  // The areas of the attachment that began at `addr`, even when parts of it were unmapped or protected since.
  SharedMemory* memory = nullptr;
  RefPtr<Mappable> keep;
  std::vector<std::pair<GuestAddr, uint64_t>> areas;
  uint64_t length = 0;
  t.memory().VisitVmas(addr, [&](const VmaInfo& i) {
    const Vma& v = i.vma;
    if (memory != nullptr && v.start >= addr + length) return false;
    auto* m = dynamic_cast<SharedMemory*>(v.mappable.get());
    if (m == nullptr || v.start - v.offset != addr || v.start < addr || !v.source ||
        !v.source->MapsName().starts_with("/SYSV")) {
      return memory != nullptr || v.start < addr + kPageSize;
    }
    if (memory == nullptr) {
      memory = m;
      keep = v.mappable;
      length = m->length();
    }
    if (m == memory) areas.emplace_back(v.start, v.length());
    return true;
  });
  if (areas.empty()) return kEINVAL;
  for (auto& [start, size] : areas) TRY(t.memory().Munmap(start, size, &t.context()));
  std::vector<RefPtr<ShmSegment>> dropped;
  MutexLock lock(table_.mutex());
  for (auto& [index, s] : table_.objects()) {
    if (s->memory.get() != memory) continue;
    s->dtime = Now();
    s->last = t.RootTgid();
  }
  Sweep(dropped);
  return {};
}

Result<shmid_ds> ShmTable::Stat(Task& t, int id, bool by_index, bool check, int* id_out) {
  std::vector<RefPtr<ShmSegment>> dropped;
  RefPtr<PidNamespace> pids = t.pid_ns();
  MutexLock lock(table_.mutex());
  Sweep(dropped);
  ShmSegment* s = TRY(by_index ? table_.FindIndex(id) : table_.Find(id));
  if (check) TRY(CheckIpc(t.cred(), s->perm, table_.owner(), 0444));
  *id_out = s->id;
  shmid_ds ds{};
  ds.shm_perm = EncodePerm(t.user_ns(), s->perm, s->id);
  ds.shm_segsz = s->size;
  ds.shm_atime = s->atime;
  ds.shm_dtime = s->dtime;
  ds.shm_ctime = s->ctime;
  ds.shm_cpid = s->creator;
  ds.shm_lpid = s->last;
  ds.shm_nattch = static_cast<shmatt_t>(s->memory->mappings());
  return ds;
}

Result<void> ShmTable::Set(Task& t, int id, const shmid_ds& ds) {
  MutexLock lock(table_.mutex());
  ShmSegment* s = TRY(table_.Find(id));
  TRY(CheckIpcOwner(t.cred(), s->perm, table_.owner()));
  TRY(ApplyPerm(t.user_ns(), ds.shm_perm, &s->perm));
  s->ctime = Now();
  return {};
}

Result<void> ShmTable::Remove(Task& t, int id) {
  std::vector<RefPtr<ShmSegment>> dropped;
  MutexLock lock(table_.mutex());
  ShmSegment* s = TRY(table_.Find(id));
  TRY(CheckIpcOwner(t.cred(), s->perm, table_.owner()));
  s->perm.mode |= SHM_DEST;
  s->perm.key = IPC_PRIVATE;  // cannot be found by its key any more
  Sweep(dropped);
  return {};
}

Result<void> ShmTable::Lock(Task& t, int id, bool on) {
  MutexLock lock(table_.mutex());
  ShmSegment* s = TRY(table_.Find(id));
  if (!t.cred().HasCapability(CAP_IPC_LOCK)) {
    if (t.cred().euid != s->perm.uid && t.cred().euid != s->perm.cuid) return kEPERM;
    if (on && t.thread_group().rlimits().Soft(RLIMIT_MEMLOCK) == 0) return kEPERM;
  }
  // The sandbox has no swap: a segment stays in memory as it is.
  s->perm.mode = on ? s->perm.mode | SHM_LOCKED : s->perm.mode & ~static_cast<uint32_t>(SHM_LOCKED);
  return {};
}

ShmTable::Totals ShmTable::GetTotals() {
  MutexLock lock(table_.mutex());
  Totals totals{static_cast<int>(table_.objects().size()), table_.HighestIndex(), 0};
  for (auto& [index, s] : table_.objects()) totals.pages += s->memory->length() / kPageSize;
  return totals;
}

}  // namespace moat
