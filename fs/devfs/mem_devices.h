// The devices of major 1: null, zero, full, random, urandom. Source: null(4), full(4), random(4).
#ifndef MOAT_FS_DEVFS_MEM_DEVICES_H_
#define MOAT_FS_DEVFS_MEM_DEVICES_H_

#include "fs/vfs/vfs.h"

namespace moat {

inline constexpr uint32_t kMemMajor = 1;
enum MemMinor : uint32_t { kNullMinor = 3, kZeroMinor = 5, kFullMinor = 7, kRandomMinor = 8, kUrandomMinor = 9 };

// kENXIO for other minors.
class MemDriver final : public vfs::DeviceDriver {
 public:
  using FillRandomFn = void (*)(void* out, size_t n);
  explicit MemDriver(FillRandomFn fill_random) : fill_random_(fill_random) {}
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, DeviceId dev) override;

 private:
  const FillRandomFn fill_random_;  // null: the host's getrandom(2)
};

}  // namespace moat

#endif  // MOAT_FS_DEVFS_MEM_DEVICES_H_
