// File handles of tmpfs: generation and inode number, as Linux's shmem_encode_fh lays them out.
#include <algorithm>
#include <cstring>

#include "fs/tmpfs/tmpfs_inode.h"

namespace moat {
namespace {

constexpr int32_t kHandleType = 1;
struct HandleBytes {
  uint32_t generation, ino_low, ino_high;
};

}  // namespace

Result<FileHandle> TmpfsFs::EncodeHandle(const Inode& inode) {
  HandleBytes h{generation_, static_cast<uint32_t>(inode.ino()), static_cast<uint32_t>(inode.ino() >> 32)};
  return FileHandle{kHandleType, std::string(reinterpret_cast<const char*>(&h), sizeof h)};
}

Result<std::vector<std::string>> TmpfsFs::DecodeHandle(const FileHandle& handle) {
  HandleBytes h;
  if (handle.type != kHandleType || handle.bytes.size() < sizeof h) return kESTALE;
  memcpy(&h, handle.bytes.data(), sizeof h);
  uint64_t ino = h.ino_low | uint64_t{h.ino_high} << 32;
  if (h.generation != generation_) return kESTALE;
  if (ino == root_->ino()) return std::vector<std::string>();

  // Breadth first; each directory knows the one that it was found in.
  struct Found {
    RefPtr<TmpfsDirectory> dir;
    size_t parent;
    std::string name;
  };
  std::vector<Found> dirs;
  dirs.push_back({RefPtr<TmpfsDirectory>(static_cast<TmpfsDirectory*>(root_.get())), 0, ""});
  for (size_t at = 0; at < dirs.size(); ++at) {
    RefPtr<TmpfsDirectory> dir = dirs[at].dir;
    std::string last;
    dir->ForEach([&](const std::string& name, TmpfsInode& inode) {
      if (inode.ino() == ino) {
        last = name;
      } else if (inode.is_dir()) {
        dirs.push_back({RefPtr<TmpfsDirectory>(static_cast<TmpfsDirectory*>(&inode)), at, name});
      }
    });
    if (last.empty()) continue;
    std::vector<std::string> names = {std::move(last)};
    for (size_t up = at; up != 0; up = dirs[up].parent) names.push_back(dirs[up].name);
    std::reverse(names.begin(), names.end());
    return names;
  }
  return kESTALE;
}

}  // namespace moat
