// /proc/<pid>/map_files: a link to each mapped file, named by the addresses. Source: proc_pid_map_files(5).
#include <dirent.h>
#include <fmt/format.h>

#include <charconv>

#include "fs/vfs/file.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

constexpr uint32_t kMapFilesIndex = 1102;
// Beyond every other number: the address moves it up.
constexpr uint64_t kMapFileInoBase = uint64_t{1} << 54;

struct Range {
  GuestAddr start = 0, end = 0;
};

// "7f0000-7f1000", as the listing has it: lower case, no leading zeros.
bool ParseRange(std::string_view name, Range* r) {
  size_t dash = name.find('-');
  if (dash == name.npos) return false;
  auto number = [](std::string_view text, GuestAddr* value) {
    if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
    for (char c : text) {
      if (c >= 'A' && c <= 'F') return false;
    }
    auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *value, 16);
    return ec == std::errc() && end == text.data() + text.size();
  };
  return number(name.substr(0, dash), &r->start) && number(name.substr(dash + 1), &r->end);
}

struct MappedFile {
  Range range;
  RefPtr<File> file;
};

// Calls visit(mapped file) for each area of a file from `from` on, until it answers false.
template <typename Visit>
void VisitFiles(Task& task, GuestAddr from, Visit visit) {
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return;
  const bool measure = false;
  mm->VisitVmas(
      from,
      [&](const VmaInfo& i) {
        RefPtr<RefCounted> source = i.vma.source ? i.vma.source->file() : nullptr;
        if (!source) return true;
        return visit(MappedFile{{i.vma.start, i.vma.end}, RefPtr<File>(static_cast<File*>(source.get()))});
      },
      measure);
}

MappedFile FindFile(Task& task, Range wanted) {
  MappedFile found;
  VisitFiles(task, wanted.start, [&](MappedFile f) {
    if (f.range.start == wanted.start && f.range.end == wanted.end) found = std::move(f);
    return false;
  });
  return found;
}

class MapFileLink final : public TaskFileLink {
 public:
  MapFileLink(ProcFs& fs, RefPtr<Task> task, Range range, uint32_t mode)
      : TaskFileLink(fs, task, S_IFLNK, kMapFileInoBase | range.start, mode), range_(range) {}
  // Opening what only a mapping keeps gets round the file's path: for the privileged.
  Result<VfsPath> FollowMagicLink(const VfsContext& ctx) override {
    const UserNamespace& root = *proc_.kernel().root_user_ns();
    if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, root) && !ctx.cred.HasCapabilityIn(CAP_CHECKPOINT_RESTORE, root)) {
      return kEPERM;
    }
    return TaskFileLink::FollowMagicLink(ctx);
  }

 private:
  RefPtr<File> Find() override { return FindFile(*task_, range_).file; }
  const Range range_;
};

class MapFilesDir final : public TaskOwned<PseudoDir> {
 public:
  MapFilesDir(ProcFs& fs, RefPtr<Task> task) : TaskOwned(fs, task, TaskIno(*task, false, kMapFilesIndex), 0500) {}

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override {
    Range range;
    if (!ParseRange(name, &range)) return kENOENT;
    TRY(CheckTaskAccess(ctx, *task_));
    MappedFile found = FindFile(*task_, range);
    if (!found.file) return kENOENT;
    uint32_t mode = (found.file->readable() ? 0400 : 0) | (found.file->writable() ? 0200 : 0);
    return RefPtr<Inode>(MakeRef<MapFileLink>(proc_, task_, range, mode));
  }

  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override {
    TRY(CheckTaskAccess(ctx, *task_));
    // A position is the page of the area's start, above those of "." and "..".
    GuestAddr first = from <= 2 ? 0 : static_cast<GuestAddr>(from - 2) * kPageSize;
    VisitFiles(*task_, first, [&](const MappedFile& f) {
      int64_t position = 2 + static_cast<int64_t>(f.range.start / kPageSize);
      if (position >= from) {
        out.push_back(
            {fmt::format("{:x}-{:x}", f.range.start, f.range.end), kMapFileInoBase | f.range.start, DT_LNK, position});
      }
      return true;
    });
    return {};
  }
};

}  // namespace

RefPtr<Inode> MakeMapFilesDir(ProcFs& fs, RefPtr<Task> task, bool) { return MakeRef<MapFilesDir>(fs, std::move(task)); }

}  // namespace moat::proc
