// Executables out of the VFS, for the loader. Source: execve(2).
#ifndef MOAT_SENTRY_KERNEL_EXECUTABLE_FILE_H_
#define MOAT_SENTRY_KERNEL_EXECUTABLE_FILE_H_

#include <cstddef>
#include <vector>

#include "fs/vfs/file.h"
#include "fs/vfs/mount.h"
#include "sentry/loader/executable_source.h"

namespace moat {

// An open regular file. While it or a mapping of it exists nobody can open the file for writing (ETXTBSY). Not
// thread-safe.
class ExecutableFile final : public ExecutableSource {
 public:
  // kEACCES: not a regular file, no permission, or a noexec mount; kETXTBSY: open for writing.
  static Result<RefPtr<ExecutableFile>> Open(const VfsContext& ctx, const VfsPath& path);

  Result<size_t> Read(void* dst, size_t n, uint64_t offset) override;
  Result<RefPtr<Mappable>> GetMappable() override { return file_->GetMappable(); }
  RefPtr<MappingSource> mapping_source() override { return mapping_source_; }
  const RefPtr<File>& file() const { return file_; }

 private:
  ExecutableFile(const VfsContext& ctx, RefPtr<File> file, RefPtr<RefCounted> denial);
  Result<size_t> ReadFile(void* dst, size_t n, uint64_t offset);
  const RefPtr<File> file_;
  const RefPtr<MappingSource> mapping_source_;
  // The beginning, where the headers are, read once; empty before that.
  static constexpr size_t kHead = 1024;
  std::vector<std::byte> head_;
  // What reading needs of the context of the open.
  const RefPtr<const Credentials> cred_;
  const RefPtr<MountNamespace> mounts_;
};

class VfsExecutableOpener final : public ExecutableOpener {
 public:
  explicit VfsExecutableOpener(const VfsContext& ctx) : ctx_(ctx) {}
  Result<RefPtr<ExecutableSource>> OpenExecutable(std::string_view path) override;

 private:
  const VfsContext& ctx_;
};

// The name of a mapped file in /proc/<pid>/maps; keeps the file open. `ctx` gives the root that the name is seen from.
RefPtr<MappingSource> FileMappingSource(const VfsContext& ctx, RefPtr<File> file);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_EXECUTABLE_FILE_H_
