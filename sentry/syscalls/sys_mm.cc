// mmap(2) and the other calls on the caller's own address space. The work is MemoryManager's.
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/vfs/file.h"
#include "sentry/kernel/executable_file.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

// What MAP_SHARED_VALIDATE knows: Linux's LEGACY_MAP_MASK. MAP_SYNC (DAX) is refused as by any other file.
constexpr int kKnownMapFlags = MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_DENYWRITE | MAP_EXECUTABLE |
                               MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK |
                               MAP_HUGETLB | MAP_32BIT | MAP_FIXED_NOREPLACE | 0x80 /* MAP_ABOVE4G */;

bool IsDevZero(File& file) {
  RefPtr<Inode> inode = file.inode();
  if (!inode || inode->type() != S_IFCHR) return false;
  Result<Kstat> stat = file.GetAttr();
  return stat.ok() && stat->rdev.major == 1 && stat->rdev.minor == 5;
}

// Fills in what the file says about the mapping.
Result<void> DescribeFile(Task& t, RefPtr<File> file, MmapRequest* request) {
  const int type = request->flags & MAP_TYPE;
  if ((request->flags & MAP_HUGETLB) != 0) return kEINVAL;  // no file of ours is on hugetlbfs
  if (type != MAP_PRIVATE && type != MAP_SHARED && type != MAP_SHARED_VALIDATE) return kEINVAL;
  if (!file->readable()) return kEACCES;
  if (type != MAP_PRIVATE) {
    if (type == MAP_SHARED_VALIDATE && (request->flags & ~kKnownMapFlags) != 0) return kEOPNOTSUPP;
    if (!file->writable()) {
      if ((request->prot & PROT_WRITE) != 0) return kEACCES;
      request->max_prot &= ~PROT_WRITE;
    }
  }
  if (file->path() && (file->path().mount->flags() & MS_NOEXEC) != 0) {
    if ((request->prot & PROT_EXEC) != 0) return kEPERM;
    request->max_prot &= ~PROT_EXEC;
  }
  Result<RefPtr<Mappable>> mappable = file->GetMappable();
  if (!mappable.ok()) {
    if (!IsDevZero(*file)) return mappable.error();
    request->flags |= MAP_ANONYMOUS;  // zero(4): as good as anonymous memory
    return {};
  }
  request->mappable = std::move(*mappable);
  Task::FsCall fs(t);
  request->source = FileMappingSource(fs, std::move(file));
  return {};
}

}  // namespace

Result<int64_t> SysMmap(Task& t, GuestAddr addr, size_t length, ProtBits prot, MapFlagBits flags, FdNum fd,
                        uint64_t offset) {
  if (offset % kPageSize != 0) return kEINVAL;
  MmapRequest request;
  request.addr = addr;
  request.length = length;
  request.prot = Raw(prot);
  request.flags = Raw(flags);
  request.offset = offset;
  if ((request.flags & MAP_ANONYMOUS) == 0) {
    RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
    if (length == 0) return kEINVAL;
    TRY(DescribeFile(t, std::move(file), &request));
  } else if ((request.flags & MAP_HUGETLB) != 0) {
    return kENOMEM;  // the pool of huge pages is empty
  }
  if ((t.personality & READ_IMPLIES_EXEC) != 0 && (request.prot & PROT_READ) != 0)
    request.prot |= PROT_EXEC & request.max_prot;
  Result<GuestAddr> at = t.memory().Mmap(request, t.mm_limits(), &t.context());
  if (!at.ok() && at.error() == kEPERM && request.mappable && (request.prot & PROT_WRITE) == 0 &&
      (request.max_prot & PROT_WRITE) != 0) {
    // A seal against writing: the mapping can be had, but never become writable.
    request.max_prot &= ~PROT_WRITE;
    at = t.memory().Mmap(request, t.mm_limits(), &t.context());
  }
  return static_cast<int64_t>(TRY(std::move(at)));
}

Result<int64_t> SysMunmap(Task& t, GuestAddr addr, size_t length) {
  TRY(t.memory().Munmap(addr, length, &t.context()));
  return 0;
}

Result<int64_t> SysMprotect(Task& t, GuestAddr addr, size_t length, ProtBits prot) {
  int bits = Raw(prot);
  if ((t.personality & READ_IMPLIES_EXEC) != 0 && (bits & PROT_READ) != 0) bits |= PROT_EXEC;
  TRY(t.memory().Mprotect(addr, length, bits, t.mm_limits(), &t.context()));
  return 0;
}

Result<int64_t> SysPkeyMprotect(Task& t, GuestAddr addr, size_t length, ProtBits prot, int key) {
  if (key != -1) return kEINVAL;  // no key can have been allocated
  return SysMprotect(t, addr, length, prot);
}

Result<int64_t> SysPkeyAlloc(Task& t, uint64_t flags, uint64_t rights) {
  constexpr uint64_t kKnownRights = 3;  // PKEY_DISABLE_ACCESS, PKEY_DISABLE_WRITE
  if (flags != 0 || (rights & ~kKnownRights) != 0) return kEINVAL;
  return kENOSPC;  // as on a processor without protection keys
}

Result<int64_t> SysPkeyFree(Task& t, int key) { return kEINVAL; }

Result<int64_t> SysBrk(Task& t, GuestAddr addr) {
  return static_cast<int64_t>(t.memory().Brk(addr, t.mm_limits(), &t.context()));
}

Result<int64_t> SysMremap(Task& t, GuestAddr old_addr, size_t old_length, size_t new_length, int flags,
                          GuestAddr new_addr) {
  return static_cast<int64_t>(
      TRY(t.memory().Mremap(old_addr, old_length, new_length, flags, new_addr, t.mm_limits(), &t.context())));
}

Result<int64_t> SysMsync(Task& t, GuestAddr addr, size_t length, int flags) {
  TRY(t.memory().Msync(addr, length, flags, &t.context()));
  return 0;
}

Result<int64_t> SysMadvise(Task& t, GuestAddr addr, size_t length, int advice) {
  TRY(t.memory().Madvise(addr, length, advice, &t.context()));
  return 0;
}

Result<int64_t> SysMseal(Task& t, GuestAddr addr, size_t length, uint64_t flags) {
  if (flags != 0) return kEINVAL;
  TRY(t.memory().Mseal(addr, length));
  return 0;
}

Result<int64_t> SysRemapFilePages(Task& t, GuestAddr addr, size_t length, int prot, size_t page_offset, int) {
  if (prot != 0 || page_offset > UINT64_MAX / kPageSize) return kEINVAL;
  TRY(t.memory().RemapFilePages(addr, length, page_offset * kPageSize, t.mm_limits(), &t.context()));
  return 0;
}

Result<int64_t> SysMincore(Task& t, GuestAddr addr, size_t length, GuestAddr vec) {
  // In pieces: the range may be as large as the address space, the sentry's buffer may not.
  constexpr uint64_t kPiece = 64 << 20;
  if (addr % kPageSize != 0) return kEINVAL;
  GuestAddr end;
  if (__builtin_add_overflow(addr, length, &end) || end > t.memory().environment().max_address) return kENOMEM;
  std::vector<uint8_t> pages;
  for (GuestAddr at = addr; at < end; at += kPiece) {
    TRY(t.memory().Mincore(at, std::min(kPiece, end - at), pages));
    if (t.memory().CopyOut(vec, pages.data(), pages.size()) != pages.size()) return kEFAULT;
    vec += pages.size();
  }
  return 0;
}

Result<int64_t> SysMlock(Task& t, GuestAddr addr, size_t length) {
  TRY(t.memory().Mlock(addr, length, false, t.mm_limits(), &t.context()));
  return 0;
}

Result<int64_t> SysMlock2(Task& t, GuestAddr addr, size_t length, int flags) {
  if ((flags & ~MLOCK_ONFAULT) != 0) return kEINVAL;
  TRY(t.memory().Mlock(addr, length, (flags & MLOCK_ONFAULT) != 0, t.mm_limits(), &t.context()));
  return 0;
}

Result<int64_t> SysMunlock(Task& t, GuestAddr addr, size_t length) {
  TRY(t.memory().Munlock(addr, length));
  return 0;
}

Result<int64_t> SysMlockall(Task& t, int flags) {
  TRY(t.memory().Mlockall(flags, t.mm_limits(), &t.context()));
  return 0;
}

Result<int64_t> SysMunlockall(Task& t) {
  t.memory().Munlockall();
  return 0;
}

}  // namespace moat
