// MemoryManager: one guest address space: its areas (VMAs), what backs their pages, and the only way for the
// sentry to touch guest memory. Shared by the tasks that have CLONE_VM in common; ends with the last reference.
//
// Every call that changes mappings takes the Limits of the calling thread group and the calling task's
// platform Context (null when the caller is not a task of this space): it queues host operations and flushes
// them once, before it returns. Memory that was unmapped goes back only after that flush.
//
// Copies (GuestMemory) that had to break copy-on-write leave operations queued: the platform applies them when a
// task of the space next enters guest code. Who writes to a space that is not its own (process_vm_writev,
// ptrace), or exits after a last write (set_tid_address), calls FlushPending.
//
// Thread-safe. Locks: kMmMapping (areas), kMmPages (page map). InvalidateMapping takes kMmPages only.
// Source: mmap(2), munmap(2), mprotect(2), mremap(2), madvise(2), brk(2), mlock(2), mincore(2), msync(2), fork(2).
#ifndef MOAT_SENTRY_MM_MEMORY_MANAGER_H_
#define MOAT_SENTRY_MM_MEMORY_MANAGER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/memory/copy_epoch.h"
#include "platform/memory/mappable.h"
#include "platform/memory/memory_file.h"
#include "platform/platform.h"
#include "platform/usermem/guest_memory.h"
#include "sentry/code/code_store.h"
#include "sentry/mm/commit_account.h"
#include "sentry/mm/fork_habits.h"
#include "sentry/mm/guest_clock.h"
#include "sentry/mm/page_map.h"
#include "sentry/mm/placed_code.h"
#include "sentry/mm/vma_set.h"

namespace moat {

// RLIMIT_* of the caller in bytes (RLIM_INFINITY: none), and what lifts RLIMIT_MEMLOCK.
struct MmLimits {
  uint64_t as = ~0ull;
  uint64_t data = ~0ull;
  uint64_t stack = 8ull << 20;
  uint64_t memlock = 8ull << 20;
  bool can_lock = false;  // CAP_IPC_LOCK
};

// What all address spaces of a sandbox share. Outlives them.
struct MmEnvironment {
  MemoryFile* memory = nullptr;
  CommitAccount* commit = nullptr;
  GuestAddr min_address = 0x10000;         // the greater of Platform::min_address and vm.mmap_min_addr
  GuestAddr max_address = 0x7ffffffff000;  // Platform::max_address
  // sentry/loader/vdso.h: a clock page and the code above it; null: programs get none.
  RefPtr<Mappable> vdso;
  RefPtr<GuestClock> clock;
  // Platform::pins_carrier: an address space can be cleared by who uses it only.
  bool pinned = true;
  // Platform::call_tables(); length 0: hot calls are left as they are.
  GuestAddr call_tables = 0;
  uint64_t call_tables_length = 0;
  // For code that processes share; null: each has the files' own.
  CodeStore* code = nullptr;
};

struct MmapRequest {
  GuestAddr addr = 0;
  uint64_t length = 0;
  int prot = 0;   // PROT_*; other bits are ignored as Linux does
  int flags = 0;  // MAP_*; exactly one of MAP_SHARED, MAP_SHARED_VALIDATE, MAP_PRIVATE
  // Null with MAP_ANONYMOUS. A shared anonymous mapping gets its own object.
  RefPtr<Mappable> mappable;
  uint64_t offset = 0;
  // What the file's open mode and mount allow; the handler computes it (EACCES is ours when prot exceeds it).
  int max_prot = PROT_READ | PROT_WRITE | PROT_EXEC;
  RefPtr<MappingSource> source;
  VmaKind kind = VmaKind::kPlain;
};

// How a fault ended: `signo` 0 means that the access can be tried again.
struct FaultOutcome {
  int signo = 0;    // SIGSEGV or SIGBUS
  int si_code = 0;  // SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR
  bool resolved() const { return signo == 0; }
};

// Addresses that prctl(PR_SET_MM_*) and /proc/<pid>/{cmdline,environ,auxv,stat} know. Set by the loader.
struct MmImage {
  GuestAddr code_start = 0, code_end = 0;
  GuestAddr data_start = 0, data_end = 0;
  GuestAddr brk_start = 0;
  GuestAddr stack_start = 0;  // the stack pointer at entry
  GuestAddr arg_start = 0, arg_end = 0;
  GuestAddr env_start = 0, env_end = 0;
  GuestAddr vdso_base = 0;
  std::vector<uint64_t> auxv;  // pairs, AT_NULL included
};

// All in bytes. For /proc/<pid>/status, statm and getrusage.
struct MmUsage {
  uint64_t size = 0, peak_size = 0;
  uint64_t rss = 0, peak_rss = 0;
  uint64_t rss_anon = 0, rss_file = 0, rss_shmem = 0;
  uint64_t data = 0, stack = 0, exec = 0, lib = 0, locked = 0;
};

// One area as /proc/<pid>/maps and smaps show it.
struct VmaInfo {
  Vma vma;              // with its own references: use it without any lock
  uint64_t rss = 0;     // bytes with memory behind them
  uint64_t anon = 0;    // of those, private
  uint64_t shared = 0;  // of those, seen by another address space too
  uint64_t dirty = 0;
};

// What a futex word is shared by: two words are one when object and offset are equal.
struct WordIdentity {
  RefPtr<Mappable> mappable;  // null: private to this address space, offset is the address
  uint64_t offset = 0;
};

class MemoryManager final : public RefCounted, public GuestMemory, public MappingSpace {
 public:
  static RefPtr<MemoryManager> Create(const MmEnvironment& env, RefPtr<AddressSpace> space);

  AddressSpace& address_space() { return *space_; }
  const MmEnvironment& environment() const { return env_; }

  // While one exists, calls queue their host operations without a flush: for the loader, which fills a space that no
  // task runs in yet. What is queued then takes effect when the first task enters the space.
  class Batch {
   public:
    explicit Batch(MemoryManager& mm) : mm_(mm) { mm_.batches_.fetch_add(1, std::memory_order_relaxed); }
    ~Batch() { mm_.batches_.fetch_sub(1, std::memory_order_relaxed); }
    Batch(const Batch&) = delete;

   private:
    MemoryManager& mm_;
  };

  // Where mmap without a hint begins to look downwards, and where the break begins. Before the first mapping.
  void SetLayout(GuestAddr mmap_base, GuestAddr brk_start);
  void SetBrkStart(GuestAddr brk_start);

  // --- system calls; each answers Linux's errno ---
  Result<GuestAddr> Mmap(const MmapRequest& request, const MmLimits& limits, Context* caller);
  Result<void> Munmap(GuestAddr addr, uint64_t length, Context* caller);
  // `prot` may carry PROT_GROWSDOWN or PROT_GROWSUP.
  Result<void> Mprotect(GuestAddr addr, uint64_t length, int prot, const MmLimits& limits, Context* caller);
  Result<void> Mseal(GuestAddr addr, uint64_t length);
  // `offset` in bytes: the object of the shared mapping at `addr` from there.
  Result<void> RemapFilePages(GuestAddr addr, uint64_t length, uint64_t offset, const MmLimits& limits,
                              Context* caller);
  Result<GuestAddr> Mremap(GuestAddr old_addr, uint64_t old_length, uint64_t new_length, int flags, GuestAddr new_addr,
                           const MmLimits& limits, Context* caller);
  Result<void> Madvise(GuestAddr addr, uint64_t length, int advice, Context* caller);
  // Returns the break after the call: unchanged when it could not be moved, as the system call does.
  GuestAddr Brk(GuestAddr addr, const MmLimits& limits, Context* caller);
  Result<void> Msync(GuestAddr addr, uint64_t length, int flags, Context* caller);
  // `on_fault`: MLOCK_ONFAULT.
  Result<void> Mlock(GuestAddr addr, uint64_t length, bool on_fault, const MmLimits& limits, Context* caller);
  Result<void> Munlock(GuestAddr addr, uint64_t length);
  Result<void> Mlockall(int flags, const MmLimits& limits, Context* caller);
  void Munlockall();
  // One byte a page into `out`, bit 0: resident. kENOMEM when part of the range is not mapped.
  Result<void> Mincore(GuestAddr addr, uint64_t length, std::vector<uint8_t>& out);
  // prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME); null removes the name.
  Result<void> NameAnonymous(GuestAddr addr, uint64_t length, RefPtr<MappingSource> name);

  // rseq(2): the host kernel itself stores into [addr, addr+length) of this space and cannot wait for a copy. Makes the
  // pages present and writable, and keeps them so over fork (which copies them at once) until StopKeeping; calls nest.
  // What the guest itself does to them (munmap, mprotect) still happens. kEFAULT: the guest may not write there.
  Result<void> KeepWritable(GuestAddr addr, uint64_t length, Context* caller);
  void StopKeeping(GuestAddr addr, uint64_t length);
  // Whether the stub lets [addr, addr+length) be written now.
  bool WritableNow(GuestAddr addr, uint64_t length);

  // --- faults ---
  // Answers a SIGSEGV or SIGBUS event of the platform: resolves it, or says which signal the guest gets.
  FaultOutcome HandleFault(const FaultEvent& event, const MmLimits& limits, Context* caller);
  // Tells `context`, one of this address space, where the next copy of a page will be; once it has been told,
  // HandleFault keeps it informed.
  void OfferCopy(Context& context);

  // --- hot calls (code_patch.cc) ---
  // The `syscall` in front of `behind` has made call `number` often: rewrites the code around it as the platform wants
  // it, in private copies of its pages, if it is code that nobody can write to.
  void PatchCall(GuestAddr behind, uint32_t number, const MmLimits& limits, Context* caller);
  // The same for later processes: `context` leaves this space, and tells what has called in it.
  void NoteCalls(Context& context);
  // Whether the program has a `syscall` instruction at `ip`.
  bool IsCall(GuestAddr ip);

  // --- life ---
  // The child of fork(2): private memory is shared by reference and write-protected on both sides.
  Result<RefPtr<MemoryManager>> Fork(RefPtr<AddressSpace> child_space, Context* caller);
  // Applies what copies left queued and gives freed memory back.
  Result<void> FlushPending(Context* caller);

  // --- GuestMemory ---
  size_t CopyIn(void* dst, GuestAddr src, size_t n) override;
  size_t CopyOut(GuestAddr dst, const void* src, size_t n) override;
  size_t ZeroOut(GuestAddr dst, size_t n) override;
  Result<size_t> WithSegments(GuestAddr addr, size_t n, bool to_guest, SegmentIo io) override;
  Result<uint32_t> Load32(GuestAddr addr) override;
  Result<uint32_t> CompareExchange32(GuestAddr addr, uint32_t expected, uint32_t desired) override;

  // Copies for a tracer (ptrace PEEK/POKE, /proc/<pid>/mem): the program's own bytes, whatever has been made of its
  // calls. The caller flushes after a write. Bytes copied.
  size_t TracerCopyIn(void* dst, GuestAddr src, size_t n);
  size_t TracerCopyOut(GuestAddr dst, const void* src, size_t n);
  // A tracer looks at the code: hot calls stay as they are from now on, here and in children.
  void KeepCode() { keep_code_.store(true, std::memory_order_relaxed); }
  // Protection bits do not matter, private pages are copied before a write (FOLL_FORCE); shared mappings without write
  // permission refuse one. Bytes copied.
  size_t ForceCopyIn(void* dst, GuestAddr src, size_t n);
  size_t ForceCopyOut(GuestAddr dst, const void* src, size_t n);

  // What a futex in memory shared between processes is keyed by. kEFAULT when `addr` is not mapped.
  Result<WordIdentity> IdentifyWord(GuestAddr addr);

  // --- MappingSpace ---
  void InvalidateMapping(GuestAddr start, GuestAddr end) override;
  void TruncateMapping(GuestAddr start, GuestAddr end) override;

  // --- inspection ---
  // Calls `visit` for each area that ends above `from`, lowest first, until it returns false. No lock is held
  // in `visit`, so areas may come and go between the calls. Without `measure` the sizes of what is resident stay 0,
  // which saves asking the host.
  void VisitVmas(GuestAddr from, absl::FunctionRef<bool(const VmaInfo&)> visit, bool measure = true);
  MmUsage Usage();
  MmImage image();
  void set_image(MmImage image);
  // The executable's file for /proc/<pid>/exe, opaque to mm. Null before the first execve.
  RefPtr<RefCounted> executable();
  void set_executable(RefPtr<RefCounted> executable);
  // prctl(PR_SET_DUMPABLE): SUID_DUMP_DISABLE 0, SUID_DUMP_USER 1, SUID_DUMP_ROOT 2.
  int dumpable() const { return dumpable_.load(std::memory_order_relaxed); }
  void set_dumpable(int v) { dumpable_.store(v, std::memory_order_relaxed); }

 private:
  // What may go only after the host mappings of it are gone: memory, and objects that keep host fds open.
  struct Deferred {
    std::vector<FileRange> ranges;
    std::vector<RefPtr<RefCounted>> objects;
    bool empty() const { return ranges.empty() && objects.empty(); }
  };
  // Memory-file space reserved ahead, so that areas that are neighbours get memory that is, too, and the host
  // can join their mappings (vm.max_map_count). Down: handed out from the end, for areas that grow downwards.
  enum ArenaKind { kArenaMmap, kArenaHeap, kArenaStack, kArenaCount };
  enum class Access : uint8_t { kRead, kWrite, kExec, kForceRead, kForceWrite };
  // A piece of guest memory as the sentry can touch it, valid within a section of the copy epoch.
  struct HostSpan {
    std::byte* data = nullptr;
    size_t length = 0;
    RefPtr<FileWindow> window;  // keeps `data` mapped when it is a donated file's
  };
  struct CachedSpan {
    GuestAddr start = 0, end = 0;
    std::byte* data = nullptr;
    bool writable = false;
  };

  MemoryManager(const MmEnvironment& env, RefPtr<AddressSpace> space);
  ~MemoryManager() override;
  // What others can see of it goes at once. To unmap and give back its pages takes long, and nobody waits for that.
  void OnLastUnref() override;
  // Gives up all areas and files. No guest thread is left.
  void Detach() ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);

  // --- areas (vmas.cc) ---
  Result<void> InsertVma(Vma vma) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void EraseVma(VmaSet::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  VmaSet::iterator SplitVma(GuestAddr addr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void JoinVmas(GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void JoinVmaAt(VmaSet::iterator& it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void CountVma(const Vma& vma, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  Result<void> Announce(const Vma& vma) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void Withdraw(const Vma& vma) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  void RemoveMappings(GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_)
      ABSL_LOCKS_EXCLUDED(pages_mu_);
  bool FullyMapped(GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // `alignment` (a power of two) gives way when there is no room for it.
  Result<GuestAddr> FindRoom(GuestAddr hint, uint64_t length, int flags, uint64_t alignment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  Result<void> CheckLimits(const Vma& vma, uint64_t replaced, const MmLimits& limits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // Makes `addr` part of the growing area above it, if there is one and its limits allow.
  VmaSet::iterator GrowStack(GuestAddr addr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  bool ValidRange(GuestAddr addr, uint64_t length, GuestAddr* end) const;

  // --- pages (pages.cc) ---
  void RemoveRuns(GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  void ReleaseRun(PageRun& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // kLater: with the next operation or the first touch, whatever comes first. Only where nothing is mapped.
  enum class When : uint8_t { kNow, kLater };
  void MapRun(PageRun& run, When when = When::kNow) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Adds a run where there is none, and maps it.
  void AddRun(PageRun run, When when = When::kNow) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  PageRun OwnedRun(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot) const;
  // The same of private memory, whose reference the caller hands over.
  void AddOwned(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // The same of memory that others have, too: with a reference of its own, and copied before a store.
  void AddShared(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot, When when = When::kNow)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Sets the guest's protection of the runs in the range and queues what the stub needs for it.
  void ProtectRuns(GuestAddr start, GuestAddr end, uint8_t prot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  void ForgetSpans() ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Maps what can be mapped now of a new area or of one that became accessible.
  Result<void> MapEagerly(GuestAddr start, GuestAddr end, When when = When::kNow)
      ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // Translates and maps a prefix of [addr, addr + length) of `vma` (a copy; checked again). Returns its length;
  // kEAGAIN when the area or the file changed meanwhile.
  Result<uint64_t> MapFilePages(const Vma& vma, GuestAddr addr, uint64_t length, bool write, When when = When::kNow)
      ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // The same for a small private writable segment, which is copied at once.
  Result<uint64_t> CopyFilePages(const Vma& vma, GuestAddr addr, uint64_t length)
      ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // True when `addr` still is what `vma` says; then mapping_mu_ protects that.
  bool StillMaps(const Vma& vma, GuestAddr addr, uint64_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);

  // --- rewritten code (code_patch.cc, code_place.cc) ---
  // Puts back the code of patched sites in the range, which is about to become writable or to move.
  void UnpatchCalls(GuestAddr start, GuestAddr end) { UnpatchCalls(start, end, false); }
  void UnpatchCalls(GuestAddr start, GuestAddr end, bool keep_padding);
  // Maps the tables that rewritten code jumps through, if they are not there. False: their place is taken.
  bool MapCallTables(const MmLimits& limits, Context* caller) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // Puts what all processes share of the new mapping's code in its place.
  void PlaceCode(const Vma& vma, When when, const MmLimits& limits, Context* caller)
      ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  bool PlacePieces(const Vma& vma, const CodeImage& image, When when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // Of what is placed in [start, end), whole pages: puts back the sites.
  void UnplaceCode(GuestAddr start, GuestAddr end, bool keep_padding) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // One store to an aligned word whatever its protection, if it still is `old`.
  bool ForceStore(GuestAddr word, uint32_t old, uint32_t desired);
  bool StoreCode(GuestAddr addr, const std::vector<uint8_t>& bytes);
  void RestoreCode(const CodePatch::Piece& piece);

  // --- private anonymous memory (anonymous.cc) ---
  using Touch = MemoryFile::Touch;
  bool MayHaveWindows(const Vma& vma) const;
  // What a new part of `vma` has from the beginning.
  Result<void> FillFirst(const Vma& vma, GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Memory for `page`, which has none, and for what is likely to be touched next.
  Result<void> FillTouched(const Vma& vma, GuestAddr page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Gives every page of [start, end) memory that has none.
  Result<void> FillAnonymous(const Vma& vma, GuestAddr start, GuestAddr end, Touch touch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  Result<FileRange> AllocateFor(const Vma& vma, GuestAddr start, uint64_t length, Touch touch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);

  // Copies for a child, page by page -> where in the memory file: of the kept pages and, when nobody else can be
  // storing to them (`alone`), of those that will soon be stored to. Pages become runs of their own. kENOMEM: none is
  // left over.
  using AheadCopies = std::map<GuestAddr, uint64_t>;
  Result<AheadCopies> CopyAhead(bool alone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  Result<void> CopyPages(GuestAddr start, GuestAddr end, AheadCopies* copies) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  void TakeBack(GuestAddr start, GuestAddr end, bool copies_too);
  // True when the host may still have mapped what went.
  bool TakeBackLocked(GuestAddr start, GuestAddr end, bool copies_too) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Takes over the runs that fork copied, unless they were invalidated. True when an area was wiped.
  bool AdoptRuns(std::vector<PageRun> runs) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);

  // --- faults (faults.cc) ---
  // Makes the page of `addr` accessible for `access`, as far as its area allows.
  FaultOutcome Resolve(GuestAddr addr, Access access) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // Makes the page writable: reuses it, or copies it, mostly with its neighbours. `donated`: the bytes of the window
  // around `addr` when they are a donated file's (read before, without a lock).
  Result<void> BreakCow(PageMap::iterator it, GuestAddr addr, const std::byte* donated)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  // Sees to it that next_copy_ is a place, if memory is to be had.
  void ChooseNextCopy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  void WaitForWriters() ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);

  // --- copies (copies.cc) ---
  bool Locate(GuestAddr addr, size_t n, Access access, HostSpan* span) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  bool LocateLocked(GuestAddr addr, size_t n, Access access, HostSpan* span) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pages_mu_);
  template <typename Step>
  size_t Walk(GuestAddr addr, size_t n, Access access, Step step);

  // Flushes the host operations and then lets go of what was deferred before.
  Result<void> Finish(Context* caller) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  void NoteLimits(const MmLimits& limits) { stack_limit_.store(limits.stack, std::memory_order_relaxed); }
  // True when mseal(2) forbids to unmap, move or protect some of the range.
  bool AnySealed(GuestAddr start, GuestAddr end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // Replaces `vma`'s attributes in [start, end) by what `change` makes of them; areas are split and joined.
  void ChangeVmas(GuestAddr start, GuestAddr end, absl::FunctionRef<void(Vma&)> change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // Makes [start, end) present (and writable); how far that worked.
  FaultOutcome Populate(GuestAddr start, GuestAddr end, bool write) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // The next store to a page of a file in the range will be seen again (Mappable::notes_stores).
  void AwaitStores(GuestAddr start, GuestAddr end) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  // Gives pages of the memory file that are mapped there memory behind them.
  void CommitPages(GuestAddr start, GuestAddr end) ABSL_LOCKS_EXCLUDED(mapping_mu_, pages_mu_);
  Result<void> ResizeCheck(const Vma& vma, uint64_t old_length, uint64_t new_length, const MmLimits& limits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  Result<void> MoveMapping(GuestAddr from, uint64_t old_length, GuestAddr to, uint64_t new_length, bool keep_old)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  Result<GuestAddr> MremapLocked(GuestAddr old_addr, uint64_t old_length, uint64_t new_length, int flags,
                                 GuestAddr new_addr, const MmLimits& limits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_);
  // MADV_DONTNEED: private pages lose their contents. Ranges to give back to the host are added to `decommit`, each
  // with a reference.
  void DiscardPages(GuestAddr start, GuestAddr end, std::vector<FileRange>* decommit)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mapping_mu_, pages_mu_);

  // --- constant after construction ---
  const MmEnvironment env_;
  const RefPtr<AddressSpace> space_;

  std::atomic<uint64_t> stack_limit_{8ull << 20};
  std::atomic<int> dumpable_{1};
  std::atomic<int> batches_{0};
  // Raised by every change of what the stub has mapped; tells a fault that was late from one that repeats.
  std::atomic<uint64_t> changes_{0};
  // Copies to guest memory that are under way: fork waits for them, or their bytes would miss the parent.
  CopyEpoch writers_;

  Mutex mapping_mu_{LockRank::kMmMapping};
  VmaSet vmas_ ABSL_GUARDED_BY(mapping_mu_);
  MmImage image_ ABSL_GUARDED_BY(mapping_mu_);
  RefPtr<RefCounted> executable_ ABSL_GUARDED_BY(mapping_mu_);
  // `original` is what the last store of a patch has overwritten, empty once it is back; `padding` what the others did.
  struct PatchedCall {
    GuestAddr start;
    std::vector<uint8_t> original;
    std::vector<CodePatch::Piece> padding = {};  // what was there
  };
  std::atomic<bool> keep_code_{false};
  std::vector<PatchedCall> patched_calls_ ABSL_GUARDED_BY(mapping_mu_);
  std::vector<PlacedCode> placed_code_ ABSL_GUARDED_BY(mapping_mu_);
  enum class CallTablesState : uint8_t { kNone, kMapped, kImpossible };
  CallTablesState call_tables_ ABSL_GUARDED_BY(mapping_mu_) = CallTablesState::kNone;
  GuestAddr mmap_base_ ABSL_GUARDED_BY(mapping_mu_);
  GuestAddr brk_start_ ABSL_GUARDED_BY(mapping_mu_) = 0;
  GuestAddr brk_ ABSL_GUARDED_BY(mapping_mu_) = 0;
  uint32_t future_lock_ ABSL_GUARDED_BY(mapping_mu_) = 0;  // MCL_FUTURE: kVmaLocked, kVmaLockOnFault
  // Below this the search for room begins; room above it is at most `largest_skipped_` bytes.
  GuestAddr search_top_ ABSL_GUARDED_BY(mapping_mu_);
  uint64_t largest_skipped_ ABSL_GUARDED_BY(mapping_mu_) = 0;
  MmUsage totals_ ABSL_GUARDED_BY(mapping_mu_);
  // The last faults that found nothing to do, by thread; see HandleFault.
  struct LateFault {
    const Context* caller = nullptr;
    GuestAddr address = 0;
    uint64_t changes = ~0ull;
  };
  static constexpr size_t kLateFaults = 8;
  LateFault late_faults_[kLateFaults] ABSL_GUARDED_BY(mapping_mu_);

  Mutex pages_mu_{LockRank::kMmPages};
  PageMap pages_ ABSL_GUARDED_BY(pages_mu_);
  Deferred deferred_ ABSL_GUARDED_BY(pages_mu_);
  // Where the next copy of a single page goes in the memory file: chosen before the fault, so that the platform can be
  // told (Context::ExpectCopy).
  static constexpr uint64_t kNoCopy = ~uint64_t{0};
  uint64_t next_copy_ ABSL_GUARDED_BY(pages_mu_) = kNoCopy;
  FileRange arenas_[kArenaCount] ABSL_GUARDED_BY(pages_mu_);
  uint64_t invalidations_ ABSL_GUARDED_BY(pages_mu_) = 0;
  // A child between its announcement and its runs, and where objects have been cut short meanwhile.
  bool awaits_runs_ ABSL_GUARDED_BY(pages_mu_) = false;
  std::vector<std::pair<GuestAddr, GuestAddr>> truncated_ ABSL_GUARDED_BY(pages_mu_);
  std::map<GuestAddr, int> kept_ ABSL_GUARDED_BY(pages_mu_);  // pages of KeepWritable, and how often
  RefPtr<ForkHabits> habits_ ABSL_GUARDED_BY(pages_mu_);      // null before the first fork
  int stores_to_note_ ABSL_GUARDED_BY(pages_mu_) = 0;         // of copy-on-write since the last fork
  bool writers_draining_ ABSL_GUARDED_BY(pages_mu_) = false;
  static constexpr size_t kSpanCache = 4;
  CachedSpan spans_[kSpanCache] ABSL_GUARDED_BY(pages_mu_);
  size_t next_span_ ABSL_GUARDED_BY(pages_mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_MEMORY_MANAGER_H_
