// ExecutableSource: where the loader gets a program's bytes and mappings from: an open file, or memory in tests.
// ExecutableOpener: how it opens the interpreter of a script or of a dynamic program.
#ifndef MOAT_SENTRY_LOADER_EXECUTABLE_SOURCE_H_
#define MOAT_SENTRY_LOADER_EXECUTABLE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/memory/mappable.h"
#include "sentry/mm/vma.h"

namespace moat {

class ExecutableSource : public RefCounted {
 public:
  // Bytes read: fewer than `n` only at the end of the file.
  virtual Result<size_t> Read(void* dst, size_t n, uint64_t offset) = 0;
  virtual Result<RefPtr<Mappable>> GetMappable() = 0;
  // Its name in /proc/<pid>/maps; keeps the file open.
  virtual RefPtr<MappingSource> mapping_source() = 0;
};

class ExecutableOpener {
 public:
  virtual ~ExecutableOpener() = default;
  // Opens `path` for execution: a regular file with execute permission on a mount that allows it (kEACCES), relative
  // to the task's working directory.
  virtual Result<RefPtr<ExecutableSource>> OpenExecutable(std::string_view path) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_EXECUTABLE_SOURCE_H_
