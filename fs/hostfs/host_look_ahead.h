// HostLookAhead: the answers of one multi-component walk, until the lookups that it was made for have come. It belongs
// to one path walk on one thread, and finds it through a thread-local pointer. See Inode::LookAhead.
#ifndef MOAT_FS_HOSTFS_HOST_LOOK_AHEAD_H_
#define MOAT_FS_HOSTFS_HOST_LOOK_AHEAD_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fs/hostfs/host_inode.h"

namespace moat {

class HostLookAhead final : public RefCounted {
 public:
  // Asks the gofer for `names`, the first in `dir`.
  HostLookAhead(RefPtr<HostInode> dir, std::span<const std::string_view> names);

  // The answer for `name` in `dir`, if it is the next one and no name of the file system has changed since it was
  // asked: a caller that holds the directory's lock then sees what a lookup would answer now.
  static std::optional<Result<RefPtr<Inode>>> Take(HostInode& dir, std::string_view name);

 private:
  ~HostLookAhead() override;

  const RefPtr<HostInode> first_;
  HostLookAhead* const outer_;  // of the same thread
  uint64_t name_changes_;       // of the file system, before the question
  std::vector<std::string> names_;
  GoferClient::Walked walked_;
  size_t next_ = 0;
  const HostInode* expected_;  // where the next name is looked up
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_LOOK_AHEAD_H_
