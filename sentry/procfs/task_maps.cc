#include <fmt/format.h>

#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

std::string NameOf(const Vma& v) {
  switch (v.kind) {
    case VmaKind::kHeap:
      return "[heap]";
    case VmaKind::kStack:
      return "[stack]";
    case VmaKind::kVdso:
      return "[vdso]";
    case VmaKind::kVvar:
      return "[vvar]";
    case VmaKind::kPlain:
      break;
  }
  std::string name = v.source ? v.source->MapsName() : std::string();
  // A newline would fake another line.
  for (size_t at = 0; (at = name.find('\n', at)) != std::string::npos; at += 4) name.replace(at, 1, "\\012");
  return name;
}

void AddLine(std::string& s, const Vma& v) {
  Mappable::Identity id = v.mappable ? v.mappable->identity() : Mappable::Identity{};
  std::string line =
      fmt::format("{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ", v.start, v.end, v.prot & PROT_READ ? 'r' : '-',
                  v.prot & PROT_WRITE ? 'w' : '-', v.prot & PROT_EXEC ? 'x' : '-', v.shared() ? 's' : 'p',
                  v.mappable ? v.offset : 0, id.dev_major, id.dev_minor, id.ino);
  std::string name = NameOf(v);
  if (!name.empty()) {
    if (line.size() < 73) line.resize(73, ' ');
    line += name;
  }
  s += line;
  s += '\n';
}

struct Sizes {
  uint64_t size = 0, rss = 0, anon = 0, shared_clean = 0, shared_dirty = 0, private_clean = 0, private_dirty = 0,
           locked = 0;
};

Sizes SizesOf(const VmaInfo& i) {
  Sizes z;
  z.size = i.vma.length();
  z.rss = i.rss;
  z.anon = i.anon;
  const uint64_t shared_dirty = std::min(i.shared, i.dirty);
  z.shared_dirty = shared_dirty;
  z.shared_clean = i.shared - shared_dirty;
  const uint64_t own = i.rss - std::min(i.rss, i.shared);
  z.private_dirty = std::min(own, i.dirty - shared_dirty);
  z.private_clean = own - z.private_dirty;
  z.locked = i.vma.Has(kVmaLocked) ? i.rss : 0;
  return z;
}

void AddSizes(std::string& s, const Sizes& z, bool rollup) {
  auto line = [&](const char* name, uint64_t bytes) {
    s += fmt::format("{:<16}{:8} kB\n", std::string(name) + ":", bytes >> 10);
  };
  if (!rollup) {
    line("Size", z.size);
    line("KernelPageSize", kPageSize);
    line("MMUPageSize", kPageSize);
  }
  line("Rss", z.rss);
  line("Pss", z.private_clean + z.private_dirty + (z.shared_clean + z.shared_dirty) / 2);
  line("Shared_Clean", z.shared_clean);
  line("Shared_Dirty", z.shared_dirty);
  line("Private_Clean", z.private_clean);
  line("Private_Dirty", z.private_dirty);
  line("Referenced", z.rss);
  line("Anonymous", z.anon);
  line("LazyFree", 0);
  line("AnonHugePages", 0);
  line("ShmemPmdMapped", 0);
  line("FilePmdMapped", 0);
  line("Shared_Hugetlb", 0);
  line("Private_Hugetlb", 0);
  line("Swap", 0);
  line("SwapPss", 0);
  line("Locked", z.locked);
}

std::string Flags(const Vma& v) {
  std::string f;
  auto add = [&](bool on, const char* name) {
    if (on) f += std::string(name) + ' ';
  };
  add(v.prot & PROT_READ, "rd");
  add(v.prot & PROT_WRITE, "wr");
  add(v.prot & PROT_EXEC, "ex");
  add(v.shared(), "sh");
  add(v.max_prot & PROT_READ, "mr");
  add(v.max_prot & PROT_WRITE, "mw");
  add(v.max_prot & PROT_EXEC, "me");
  add(v.shared(), "ms");
  add(v.Has(kVmaGrowsDown), "gd");
  add(v.Has(kVmaLocked), "lo");
  add(v.Has(kVmaSequential), "sr");
  add(v.Has(kVmaRandom), "rr");
  add(v.Has(kVmaDontFork), "dc");
  add(v.Has(kVmaAccounted), "ac");
  add(v.Has(kVmaNoReserve), "nr");
  add(v.Has(kVmaDontDump), "dd");
  add(v.Has(kVmaWipeOnFork), "wf");
  add(v.Has(kVmaHugePage), "hg");
  add(v.Has(kVmaNoHugePage), "nh");
  add(v.Has(kVmaSealed), "sl");
  return f;
}

}  // namespace

Result<std::string> Maps(ProcFs&, Task& task, const VfsContext&) {
  std::string s;
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return s;
  const bool measure = false;
  mm->VisitVmas(
      0,
      [&](const VmaInfo& i) {
        AddLine(s, i.vma);
        return true;
      },
      measure);
  return s;
}

Result<std::string> Smaps(ProcFs&, Task& task, const VfsContext&) {
  std::string s;
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return s;
  mm->VisitVmas(0, [&](const VmaInfo& i) {
    AddLine(s, i.vma);
    AddSizes(s, SizesOf(i), false);
    s += "THPeligible:           0\n";
    s += "VmFlags: " + Flags(i.vma) + "\n";
    return true;
  });
  return s;
}

Result<std::string> SmapsRollup(ProcFs&, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return kESRCH;
  Sizes sum;
  GuestAddr first = 0, last = 0;
  bool any = false;
  mm->VisitVmas(0, [&](const VmaInfo& i) {
    Sizes z = SizesOf(i);
    sum.rss += z.rss;
    sum.anon += z.anon;
    sum.shared_clean += z.shared_clean;
    sum.shared_dirty += z.shared_dirty;
    sum.private_clean += z.private_clean;
    sum.private_dirty += z.private_dirty;
    sum.locked += z.locked;
    if (!any) first = i.vma.start;
    any = true;
    last = i.vma.end;
    return true;
  });
  std::string line = fmt::format("{:08x}-{:08x} ---p 00000000 00:00 0 ", first, last);
  line.resize(std::max<size_t>(line.size(), 73), ' ');
  std::string s = line + "[rollup]\n";
  AddSizes(s, sum, true);
  return s;
}

}  // namespace moat::proc
