#include "fs/vfs/file_handle.h"

namespace moat::vfs {
namespace {

constexpr int32_t kInodeAndGeneration = 0x81;  // FILEID_INO64_GEN

}  // namespace

Result<FileHandle> EncodeHandle(const VfsPath& path, bool identity_only) {
  Inode* inode = path.dentry->inode_ptr();
  if (inode == nullptr) return kENOENT;
  Result<FileHandle> handle = inode->fs().EncodeHandle(*inode);
  if (handle.ok() || handle.error() != kEOPNOTSUPP || !identity_only) return handle;
  uint64_t ino = inode->ino();
  std::string bytes(reinterpret_cast<const char*>(&ino), sizeof ino);
  bytes.append(sizeof(uint32_t), '\0');
  return FileHandle{kInodeAndGeneration, std::move(bytes)};
}

Result<VfsPath> DecodeHandle(const VfsContext& ctx, const VfsPath& at, const FileHandle& handle) {
  FileSystem& fs = at.mount->fs();
  VfsPath place(at.mount, fs.root_dentry());
  for (const std::string& name : TRY(fs.DecodeHandle(handle))) {
    // Renamed meanwhile: as good as gone.
    if (!place.dentry->inode_ptr()->is_dir()) return kESTALE;
    place.dentry = TRY(place.dentry->LookupChild(ctx, name));
    if (place.dentry->inode_ptr() == nullptr) return kESTALE;
  }
  return place;
}

}  // namespace moat::vfs
