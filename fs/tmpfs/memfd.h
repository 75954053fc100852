// memfd_create(2): a nameless tmpfs file, and the seals of tmpfs files. Source: memfd_create(2), fcntl(2) "File
// Sealing".
#ifndef MOAT_FS_TMPFS_MEMFD_H_
#define MOAT_FS_TMPFS_MEMFD_H_

#include <cstdint>
#include <string_view>

#include "fs/vfs/file.h"

namespace moat {

// `flags`: MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC (MFD_CLOEXEC is the descriptor's). Opened O_RDWR; shown as
// "/memfd:name (deleted)".
Result<RefPtr<File>> CreateMemfd(const VfsContext& ctx, std::string_view name, unsigned flags);

// fcntl(F_ADD_SEALS, F_GET_SEALS). kEINVAL: not a file with seals; kEPERM: not open for writing, or sealed against
// more; kEBUSY: F_SEAL_WRITE with writable shared mappings.
Result<void> AddSeals(File& file, uint32_t seals);
Result<int64_t> GetSeals(File& file);

}  // namespace moat

#endif  // MOAT_FS_TMPFS_MEMFD_H_
