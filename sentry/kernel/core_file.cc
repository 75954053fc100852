// The ELF file of a core dump: a header, one note segment, and the memory that coredump_filter 0x33 selects.
#include <elf.h>
#include <sys/procfs.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/core_dump.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"

namespace moat {
namespace {

constexpr size_t kMaxSegments = PN_XNUM - 2;  // with the notes' in sixteen bits
constexpr uint32_t kSiginfoNote = 0x53494749, kFileNote = 0x46494c45;
constexpr size_t kFxsaveBytes = 512;
constexpr size_t kChunkPages = 64;

struct Segment {
  GuestAddr start = 0, end = 0;
  uint64_t bytes = 0;  // of it in the file
  uint8_t prot = 0;
  uint64_t file_offset = 0;
  std::string name;  // of a mapped file
};

// Bytes at the end of the file; stops at the limit, or at the first error.
class Output {
 public:
  Output(const VfsContext& ctx, File& file, uint64_t limit) : ctx_(ctx), file_(file), left_(limit) {}

  bool Write(const void* data, size_t n) {
    if (!good_ || n > left_) return good_ = false;
    BufferIoSource src(data, n);
    while (src.remaining() != 0) {
      Result<size_t> done = file_.WriteAt(ctx_, src, static_cast<int64_t>(at_));
      if (!done.ok() || *done == 0) return good_ = false;
      at_ += *done;
      left_ -= *done;
    }
    return true;
  }
  // A hole; it does not count.
  void Skip(uint64_t n) { at_ += n; }
  uint64_t at() const { return at_; }
  bool good() const { return good_; }

 private:
  const VfsContext& ctx_;
  File& file_;
  uint64_t left_;
  uint64_t at_ = 0;
  bool good_ = true;
};

void AddNote(std::string& notes, const char* name, uint32_t type, const void* data, size_t size) {
  const Elf64_Nhdr header = {static_cast<uint32_t>(strlen(name) + 1), static_cast<uint32_t>(size), type};
  auto pad = [&] { notes.resize((notes.size() + 3) & ~size_t{3}); };
  notes.append(reinterpret_cast<const char*>(&header), sizeof header);
  notes.append(name, strlen(name) + 1);
  pad();
  notes.append(static_cast<const char*>(data), size);
  pad();
}

timeval ToTimevalOf(Nanos n) { return {n / kNanosPerSec, n % kNanosPerSec / 1000}; }

void AddThread(std::string& notes, Task& t, const CoreThread& thread, const SigInfo& info) {
  ThreadGroup& group = t.thread_group();
  elf_prstatus s = {};
  s.pr_info = {info.si_signo, info.si_code, info.si_errno};
  s.pr_cursig = static_cast<short>(info.si_signo);
  s.pr_sigpend = thread.pending;
  s.pr_sighold = thread.blocked;
  s.pr_pid = thread.tid;
  s.pr_ppid = group.ParentIdIn(*t.pid_ns());
  s.pr_pgrp = group.ProcessGroupIdIn(*t.pid_ns());
  s.pr_sid = group.SessionIdIn(*t.pid_ns());
  const CpuTimes times = group.cpu_times();
  s.pr_utime = ToTimevalOf(times.user);
  s.pr_stime = ToTimevalOf(times.system);
  static_assert(sizeof s.pr_reg == sizeof thread.regs);
  memcpy(&s.pr_reg, &thread.regs, sizeof s.pr_reg);
  s.pr_fpvalid = thread.extended.size() >= kFxsaveBytes;
  AddNote(notes, "CORE", NT_PRSTATUS, &s, sizeof s);
}

void AddExtended(std::string& notes, const CoreThread& thread) {
  if (thread.extended.size() < kFxsaveBytes) return;
  AddNote(notes, "CORE", NT_FPREGSET, thread.extended.data(), kFxsaveBytes);
  if (thread.extended.size() == kFxsaveBytes) return;
  // In this note Linux says which features the processor has enabled where a signal frame has its marks.
  constexpr size_t kSoftwareBytes = 464;
  ExtendedState state = thread.extended;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const uint64_t enabled = uint64_t{high} << 32 | low;
  std::fill(state.begin() + kSoftwareBytes, state.begin() + kFxsaveBytes, 0);
  memcpy(state.data() + kSoftwareBytes, &enabled, sizeof enabled);
  AddNote(notes, "LINUX", NT_X86_XSTATE, state.data(), state.size());
}

void AddProcess(std::string& notes, Task& t) {
  ThreadGroup& group = t.thread_group();
  elf_prpsinfo p = {};
  p.pr_sname = 'R';
  p.pr_nice = static_cast<char>(t.sched().nice);
  p.pr_uid = t.user_ns().FromKuid(t.cred().uid);
  p.pr_gid = t.user_ns().FromKgid(t.cred().gid);
  p.pr_pid = t.tgid();
  p.pr_ppid = group.ParentIdIn(*t.pid_ns());
  p.pr_pgrp = group.ProcessGroupIdIn(*t.pid_ns());
  p.pr_sid = group.SessionIdIn(*t.pid_ns());
  t.comm().copy(p.pr_fname, sizeof p.pr_fname - 1);
  const MmImage image = t.memory().image();
  const size_t length = std::min<size_t>(image.arg_end - image.arg_start, sizeof p.pr_psargs - 1);
  const size_t n = t.memory().CopyIn(p.pr_psargs, image.arg_start, length);
  std::replace(p.pr_psargs, p.pr_psargs + n, '\0', ' ');
  AddNote(notes, "CORE", NT_PRPSINFO, &p, sizeof p);
}

// Count, page size, one triple a mapping, and the names: the format of NT_FILE.
void AddFiles(std::string& notes, const std::vector<Segment>& segments) {
  std::vector<uint64_t> numbers = {0, kPageSize};
  std::string names;
  for (const Segment& s : segments) {
    if (s.name.empty()) continue;
    ++numbers[0];
    numbers.insert(numbers.end(), {s.start, s.end, s.file_offset / kPageSize});
    names.append(s.name.c_str(), s.name.size() + 1);
  }
  std::string data(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof numbers[0]);
  data += names;
  AddNote(notes, "CORE", kFileNote, data.data(), data.size());
}

// core(5), "Controlling which mappings are written": private and shared anonymous memory, and the first page of files
// that begin with an ELF header.
uint64_t BytesToDump(Task& t, const VmaInfo& info) {
  const Vma& vma = info.vma;
  if (vma.kind == VmaKind::kVdso) return vma.length();
  if (vma.Has(kVmaDontDump) || vma.kind == VmaKind::kVvar) return 0;
  const std::string name = vma.source ? vma.source->MapsName() : "";
  const bool of_file = vma.mappable && name.starts_with('/') && !name.ends_with(" (deleted)");
  if (vma.shared()) return of_file ? 0 : vma.length();
  if (info.anon != 0) return vma.length();
  if (!vma.mappable || vma.offset != 0 || (vma.prot & PROT_READ) == 0) return 0;
  char magic[SELFMAG];
  const bool elf = t.memory().CopyIn(magic, vma.start, SELFMAG) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0;
  return elf ? kPageSize : 0;
}

std::vector<Segment> FindSegments(Task& t) {
  std::vector<Segment> segments;
  t.memory().VisitVmas(0, [&](const VmaInfo& info) {
    const Vma& vma = info.vma;
    Segment s{vma.start, vma.end, BytesToDump(t, info), vma.prot, vma.offset, {}};
    if (vma.mappable && vma.source && vma.kind == VmaKind::kPlain) {
      std::string name = vma.source->MapsName();
      if (name.starts_with('/')) s.name = std::move(name);
    }
    segments.push_back(std::move(s));
    return segments.size() < kMaxSegments;
  });
  return segments;
}

void WriteMemory(MemoryManager& mm, const Segment& s, Output& out) {
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(kChunkPages * kPageSize);
  std::vector<uint8_t> resident;
  const GuestAddr end = s.start + s.bytes;
  for (GuestAddr at = s.start; at < end && out.good();) {
    const uint64_t n = std::min<uint64_t>(end - at, kChunkPages * kPageSize);
    // Pages without memory stay holes: to read them would fill them.
    if (!mm.Mincore(at, n, resident).ok()) resident.assign(n / kPageSize, 0);
    for (uint64_t page = 0; page < resident.size() && out.good();) {
      const bool present = resident[page] != 0;
      uint64_t stop = page + 1;
      while (stop < resident.size() && (resident[stop] != 0) == present) ++stop;
      const uint64_t bytes = (stop - page) * kPageSize;
      const size_t read = present ? mm.ForceCopyIn(buffer.get(), at + page * kPageSize, bytes) : 0;
      if (read != 0) out.Write(buffer.get(), read);
      out.Skip(bytes - read);
      page = stop;
    }
    at += n;
  }
}

}  // namespace

void WriteCoreFile(Task& t, const VfsContext& ctx, File& file, uint64_t limit, const SigInfo& info,
                   const std::vector<CoreThread>& threads) {
  const std::vector<Segment> segments = FindSegments(t);
  std::string notes;
  AddThread(notes, t, threads.front(), info);
  AddProcess(notes, t);
  AddNote(notes, "CORE", kSiginfoNote, &info, sizeof info);
  const MmImage image = t.memory().image();
  AddNote(notes, "CORE", NT_AUXV, image.auxv.data(), image.auxv.size() * sizeof(uint64_t));
  AddFiles(notes, segments);
  AddExtended(notes, threads.front());
  for (size_t i = 1; i < threads.size(); ++i) {
    AddThread(notes, t, threads[i], info);
    AddExtended(notes, threads[i]);
  }

  Elf64_Ehdr header = {};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<uint16_t>(segments.size() + 1);

  std::vector<Elf64_Phdr> table(1);
  table[0].p_type = PT_NOTE;
  table[0].p_offset = sizeof header + (segments.size() + 1) * sizeof(Elf64_Phdr);
  table[0].p_filesz = notes.size();
  table[0].p_align = 4;
  uint64_t offset = PageCeil(table[0].p_offset + notes.size());
  const uint64_t first_data = offset;
  for (const Segment& s : segments) {
    Elf64_Phdr p = {};
    p.p_type = PT_LOAD;
    p.p_offset = offset;
    p.p_vaddr = s.start;
    p.p_filesz = s.bytes;
    p.p_memsz = s.end - s.start;
    p.p_flags =
        ((s.prot & PROT_READ) ? PF_R : 0) | ((s.prot & PROT_WRITE) ? PF_W : 0) | ((s.prot & PROT_EXEC) ? PF_X : 0);
    p.p_align = kPageSize;
    table.push_back(p);
    offset += s.bytes;
  }

  Output out(ctx, file, limit);
  out.Write(&header, sizeof header);
  out.Write(table.data(), table.size() * sizeof table[0]);
  out.Write(notes.data(), notes.size());
  out.Skip(first_data - out.at());
  for (const Segment& s : segments) {
    if (!out.good()) break;
    WriteMemory(t.memory(), s, out);
  }
  // One that ends in a hole gets its size.
  Result<Kstat> attr = file.GetAttr();
  if (out.good() && attr.ok() && attr->size < offset) {
    AttrChange grown;
    grown.size = offset;
    (void)file.inode()->SetAttr(ctx, grown);
  }
}

}  // namespace moat
