#include "sentry/kernel/rseq.h"

#include <signal.h>

#include <cstddef>

#include "sentry/kernel/kernel.h"

namespace moat::rseq {
namespace {

constexpr uint32_t kFirstLength = 32;  // of the first ABI
constexpr uint32_t kAlign = 32;
constexpr int kUnregister = 1;  // RSEQ_FLAG_UNREGISTER
constexpr uint64_t kTaskSize = 0x7ffffffff000;

// struct rseq up to what the length of the first ABI holds.
struct Area {
  uint32_t cpu_id_start, cpu_id;
  uint64_t section;  // rseq_cs: address of a Section
  uint32_t flags, node_id, mm_cid, padding;
};
static_assert(sizeof(Area) == kFirstLength && offsetof(Area, section) == 8);
constexpr uint32_t kFieldsEnd = offsetof(Area, padding);

// struct rseq_cs.
struct Section {
  uint32_t version, flags;
  uint64_t start, length, abort;
};
static_assert(sizeof(Section) == 32);

Result<void> Register(Task& t, GuestAddr area, uint32_t length, uint32_t signature) {
  if (length < kFirstLength || area % kAlign != 0 || (length != kFirstLength && length < kFieldsEnd)) return kEINVAL;
  if (!t.memory().KeepWritable(area, kFirstLength, &t.context()).ok()) {
    // Linux finds out when it stores the CPU's number there, on the way back.
    Area readable;
    if (t.memory().CopyIn(&readable, area, sizeof readable) != sizeof readable) return kEFAULT;
    t.RequestGroupExit(SIGSEGV);
    return {};
  }
  const uint64_t none = 0;
  Result<void> set = kEFAULT;
  if (t.memory().CopyOut(area + offsetof(Area, section), &none, sizeof none) == sizeof none)
    set = t.context().SetRseq({area, signature});
  if (!set.ok()) {
    t.memory().StopKeeping(area, kFirstLength);
    return set;
  }
  t.rseq = {area, length, signature};
  return {};
}

void End(Task& t) {
  (void)t.context().SetRseq({});
  t.memory().StopKeeping(t.rseq.area, kFirstLength);
  t.rseq = {};
}

void ClearSection(Task& t) {
  const uint64_t none = 0;
  (void)t.memory().CopyOut(t.rseq.area + offsetof(Area, section), &none, sizeof none);
}

// The section that the area names, checked as Linux does; nothing when it names none. kEFAULT, kEINVAL.
Result<bool> ReadSection(Task& t, Section& s) {
  MemoryManager& memory = t.memory();
  Area area;
  if (memory.CopyIn(&area, t.rseq.area, sizeof area) != sizeof area) return kEFAULT;
  if (area.section == 0) return false;
  if (memory.CopyIn(&s, area.section, sizeof s) != sizeof s) return kEFAULT;
  uint64_t end;
  if (__builtin_add_overflow(s.start, s.length, &end) || s.start >= kTaskSize || end >= kTaskSize ||
      s.abort >= kTaskSize || s.version != 0)
    return kEINVAL;
  if (s.abort - s.start < s.length) return kEINVAL;  // the way out must not lead back in
  uint32_t signature;
  if (memory.CopyIn(&signature, s.abort - sizeof signature, sizeof signature) != sizeof signature) return kEFAULT;
  if (signature != t.rseq.signature) return kEINVAL;
  s.flags |= area.flags;
  return true;
}

}  // namespace

Result<void> Call(Task& t, GuestAddr area, uint32_t length, int flags, uint32_t signature) {
  const RseqRegistration& now = t.rseq;
  if ((flags & ~kUnregister) != 0) return kEINVAL;
  if (flags == 0 && now.area == 0) return Register(t, area, length, signature);
  if (now.area == 0 || now.area != area || now.length != length) return kEINVAL;
  if (now.signature != signature) return kEPERM;
  if (flags == 0) return kEBUSY;
  if (!t.memory().WritableNow(area, kFirstLength)) return kEFAULT;
  End(t);
  return {};
}

void Abort(Task& t) {
  if (t.rseq.area == 0) return;
  Section s;
  const Result<bool> found = ReadSection(t, s);
  if (!found.ok()) {
    t.RequestGroupExit(SIGSEGV);
    return;
  }
  if (!*found) return;
  user_regs_struct& regs = t.regs().gp;
  const bool inside = regs.rip - s.start < s.length;
  if (inside && s.flags != 0) {  // obsolete: sections that are not aborted
    t.RequestGroupExit(SIGSEGV);
    return;
  }
  ClearSection(t);
  if (inside) regs.rip = s.abort;
}

bool Broken(Task& t) {
  Section unused;
  return t.rseq.area != 0 && (!t.memory().WritableNow(t.rseq.area, kFirstLength) || !ReadSection(t, unused).ok());
}

Result<void> Inherit(Task& parent, Task& child) {
  if (parent.rseq.area == 0) return {};
  // The page is there, fork has copied it: nothing to flush in a space that nobody runs in yet.
  MemoryManager::Batch batch(*child.mm());
  if (!child.mm()->KeepWritable(parent.rseq.area, kFirstLength, nullptr).ok()) return {};  // MADV_DONTFORK
  child.rseq = parent.rseq;
  return child.context().SetRseq({child.rseq.area, child.rseq.signature});
}

void Leave(Task& t) {
  if (t.rseq.area != 0) End(t);
}

}  // namespace moat::rseq
