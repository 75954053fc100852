// Calls that no C library has a wrapper for any more and that Linux keeps: ustat(2), sysfs(2).
#include <sys/sysmacros.h>

#include <algorithm>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

struct Ustat {  // struct ustat of linux/types.h
  int32_t f_tfree;
  uint32_t padding;
  uint64_t f_tinode;
  char f_fname[6], f_fpack[6];
  uint32_t tail;
};
static_assert(sizeof(Ustat) == 32);

}  // namespace

Result<int64_t> SysUstat(Task& t, uint32_t device, GuestAddr out) {
  Task::FsCall fs(t);
  RefPtr<FileSystem> found = fs.ctx().mounts.FindFileSystem({major(device), minor(device)});
  if (!found) return kEINVAL;
  FsStat s = TRY(found->StatFs());
  Ustat u{};
  u.f_tfree = static_cast<int32_t>(s.blocks_free);
  u.f_tinode = s.files_free;
  TRY(UserOut<Ustat>(out).Write(t.memory(), u));
  return 0;
}

Result<int64_t> SysSysfs(Task& t, int option, uint64_t arg1, uint64_t arg2) {
  constexpr int kIndexOfName = 1, kNameOfIndex = 2, kCount = 3;
  const std::vector<FileSystemType*> types = vfs::FileSystemTypes();
  switch (option) {
    case kIndexOfName: {
      const std::string name = TRY(UserString(arg1).Read(t.memory(), kPageSize));
      for (size_t i = 0; i < types.size(); ++i)
        if (types[i]->name() == name) return static_cast<int64_t>(i);
      return kEINVAL;
    }
    case kNameOfIndex: {
      const size_t index = static_cast<uint32_t>(arg1);
      if (index >= types.size()) return kEINVAL;
      const std::string name(types[index]->name());
      if (t.memory().CopyOut(arg2, name.c_str(), name.size() + 1) != name.size() + 1) return kEFAULT;
      return 0;
    }
    case kCount:
      return static_cast<int64_t>(types.size());
    default:
      return kEINVAL;
  }
}

}  // namespace moat
