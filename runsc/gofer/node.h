// Node: one host object that the sentry holds a handle to, as an O_PATH descriptor or an open one. NodeTable: handle ->
// node.
// Handles carry a generation, so that a stale one finds nothing rather than another object. Thread-safe.
#ifndef MOAT_RUNSC_GOFER_NODE_H_
#define MOAT_RUNSC_GOFER_NODE_H_

#include <sys/stat.h>

#include <charconv>
#include <vector>

#include "fs/hostfs/protocol.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat::gofer {

class Node final : public RefCounted {
 public:
  // kSealed: the top of a file system through which the host's kernel talks (proc, sysfs, ...), met below a mount
  // root. It is there, so that the guest can mount its own on it, but nothing in it is.
  enum class Kind { kObject, kSealed, kStdio };
  // `open`: `fd` is no O_PATH descriptor, but a directory's that can be listed, or a regular file's that can be read.
  Node(ScopedFd fd, const Attr& attr, bool read_only, Kind kind = Kind::kObject, bool open = false)
      : fd_(std::move(fd)),
        type_(attr.mode & S_IFMT),
        device_(uint64_t{attr.dev_major} << 32 | attr.dev_minor),
        read_only_(read_only),
        kind_(kind),
        open_(open) {}

  Kind kind() const { return kind_; }
  int fd() const { return fd_.get(); }  // O_PATH, but for stdio and what is open
  bool is_open() const { return open_; }
  uint32_t type() const { return type_; }
  bool read_only() const { return read_only_; }
  bool is_dir() const { return type_ == S_IFDIR; }
  uint64_t device() const { return device_; }

  // The directory stream for readdir, opened on first use; `stream_position` is the cookie it stands at.
  Mutex stream_mutex{LockRank::kGofer};
  ScopedFd stream ABSL_GUARDED_BY(stream_mutex);
  int64_t stream_position ABSL_GUARDED_BY(stream_mutex) = 0;

 private:
  const ScopedFd fd_;
  const uint32_t type_;
  const uint64_t device_;
  const bool read_only_;
  const Kind kind_;
  const bool open_;
};

// The name of a descriptor in /proc/self/fd, which is the working directory of every worker thread: a path that
// leads to the descriptor's object and nowhere else.
class FdName {
 public:
  explicit FdName(int fd) { *std::to_chars(text_, text_ + sizeof text_ - 1, fd).ptr = '\0'; }
  const char* c_str() const { return text_; }

 private:
  char text_[12];
};

class NodeTable {
 public:
  Handle Insert(RefPtr<Node> node);
  // kEBADF for a handle that is not in use.
  Result<RefPtr<Node>> Get(Handle handle) const;
  Result<void> Remove(Handle handle);
  size_t size() const;

 private:
  struct Slot {
    RefPtr<Node> node;
    uint32_t generation = 1;
  };
  static constexpr uint32_t kMaxNodes = 1 << 22;
  mutable Mutex mu_{LockRank::kGofer};
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat::gofer

#endif  // MOAT_RUNSC_GOFER_NODE_H_
