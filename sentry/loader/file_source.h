// Open files as the loader and mm see them: a program's bytes, and a mapping's name.
#ifndef MOAT_SENTRY_LOADER_FILE_SOURCE_H_
#define MOAT_SENTRY_LOADER_FILE_SOURCE_H_

#include <string>
#include <string_view>

#include "fs/vfs/file.h"
#include "fs/vfs/mount.h"
#include "fs/vfs/vfs.h"
#include "sentry/loader/executable_source.h"

namespace moat {

// Keeps `file` open as long as something of it is mapped.
class FileMappingSource final : public MappingSource {
 public:
  FileMappingSource(RefPtr<File> file, RefPtr<MountNamespace> mounts)
      : file_(std::move(file)), mounts_(std::move(mounts)) {}
  // As the root of the mapper's mount namespace sees it; procfs uses file() for the reader's own root.
  std::string MapsName() const override;
  const RefPtr<File>& file() const { return file_; }

 private:
  const RefPtr<File> file_;
  const RefPtr<MountNamespace> mounts_;
};

// A file that was opened for execution. As long as this lives nobody can open the file for writing (ETXTBSY): give it
// to MemoryManager::set_executable.
class FileExecutable final : public ExecutableSource {
 public:
  // Checks what execve checks: a regular file, execute permission, no noexec mount (kEACCES), no writer (kETXTBSY).
  // `path` is resolved; read permission is not needed.
  static Result<RefPtr<FileExecutable>> Open(const VfsContext& ctx, const VfsPath& path);

  Result<size_t> Read(void* dst, size_t n, uint64_t offset) override;
  Result<RefPtr<Mappable>> GetMappable() override { return file_->GetMappable(); }
  RefPtr<MappingSource> mapping_source() override { return source_; }
  const RefPtr<File>& file() const { return file_; }

 private:
  FileExecutable(const VfsContext& ctx, RefPtr<File> file, RefPtr<Inode> inode);
  ~FileExecutable() override;

  const RefPtr<File> file_;
  const RefPtr<Inode> inode_;  // whose writers are shut out
  const RefPtr<FileMappingSource> source_;
  const RefPtr<const Credentials> cred_;
  const RefPtr<MountNamespace> mounts_;
};

// Opens interpreters on behalf of the caller of execve. `ctx` must outlive it.
class VfsExecutableOpener final : public ExecutableOpener {
 public:
  explicit VfsExecutableOpener(const VfsContext& ctx) : ctx_(ctx) {}
  Result<RefPtr<ExecutableSource>> OpenExecutable(std::string_view path) override;

 private:
  const VfsContext& ctx_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_FILE_SOURCE_H_
