// GoferClient: the sentry's end of the gofer protocol. One object per gofer, shared by all its mounts.
// Every call is one round trip on one connection; the connection of the CPU that the caller runs on is tried
// first, because its server thread is pinned there and the hand-off then costs no cross-CPU wake-up.
// Replies are checked: a gofer that breaks the protocol, or is gone, makes every later call answer kEIO.
// Thread-safe. May take as long as the host's file system takes.
#ifndef MOAT_FS_HOSTFS_GOFER_CLIENT_H_
#define MOAT_FS_HOSTFS_GOFER_CLIENT_H_

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/hostfs/protocol.h"
#include "fs/hostfs/wire.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat {

class GoferClient final : public RefCounted {
 public:
  // AF_UNIX SOCK_SEQPACKET; connection i belongs to CPU i. kEINVAL without any.
  static Result<RefPtr<GoferClient>> Create(std::vector<ScopedFd> connections);

  struct Object {
    gofer::Handle handle = 0;
    gofer::Attr attr = {};
    ScopedFd fd;  // of kCreate: open for reading and writing
  };
  struct Walked {
    std::vector<gofer::WalkStep> steps;  // those that exist; the caller owns their handles
    std::string target;                  // of the last step, if it is a symlink
    Errno error = Errno::kOK;            // why the walk ended before the last name; kENOENT, kENOTDIR, ...
  };
  struct Entry {
    std::string name;
    uint64_t ino;
    int64_t next;
    uint32_t dev_major, dev_minor;
    uint8_t type;
  };
  struct Listing {
    std::vector<Entry> entries;
    bool at_end = false;
    bool exact = false;  // a name that is in no part of the listing is not there: see gofer::kExact
  };
  // One name of a directory: `error`, or an object.
  struct Found {
    Errno error = Errno::kOK;
    gofer::Handle handle = 0;  // the caller owns it
    gofer::Attr attr = {};
    std::string target;  // of a symlink; may be empty, then Readlink tells
    ScopedFd fd;         // of a regular file, open for reading, if it was asked for and can be opened
    Listing listing;     // of a directory; at_end if it was asked for and is short
  };
  struct Opened {
    ScopedFd fd;
    gofer::Attr attr = {};
  };
  // Whose, and with which permission bits, a new object is.
  struct NewOwner {
    uint32_t mode, uid, gid;
  };

  Result<Object> Attach(uint32_t mount);
  // At most gofer::kMaxWalk names. Fails only when nothing could be asked.
  Result<Walked> Walk(gofer::Handle dir, std::span<const std::string_view> names);
  // At most gofer::kMaxLookUp names of one directory; answers the first of them, in order: one or more. `flags`:
  // gofer::LookUpFlags. `directories`: a hint, bit i is set when name i is one of a directory.
  Result<std::vector<Found>> LookUp(gofer::Handle dir, std::span<const std::string_view> names, uint32_t flags,
                                    uint64_t directories = 0);
  Result<gofer::Attr> GetAttr(gofer::Handle h);
  // `change`: mask, mode, uid, gid, value (size), atime, mtime.
  Result<gofer::Attr> SetAttr(gofer::Handle h, const gofer::Request& change);
  Result<Opened> Open(gofer::Handle h, int access_mode);
  Result<Object> Create(gofer::Handle dir, std::string_view name, NewOwner owner);
  Result<Object> CreateTemporary(gofer::Handle dir, NewOwner owner);
  Result<Object> Mkdir(gofer::Handle dir, std::string_view name, NewOwner owner);
  Result<Object> Mknod(gofer::Handle dir, std::string_view name, NewOwner owner);
  Result<Object> Symlink(gofer::Handle dir, std::string_view name, std::string_view target, NewOwner owner);
  Result<gofer::Attr> Link(gofer::Handle dir, std::string_view name, gofer::Handle target);
  // The attributes that `child` is left with.
  Result<gofer::Attr> Unlink(gofer::Handle dir, std::string_view name, gofer::Handle child, bool directory);
  Result<void> Rename(gofer::Handle old_dir, std::string_view old_name, gofer::Handle new_dir,
                      std::string_view new_name, unsigned flags);
  Result<Listing> Readdir(gofer::Handle dir, int64_t cookie);
  Result<std::string> Readlink(gofer::Handle h);
  Result<gofer::StatFs> StatFileSystem(gofer::Handle h);
  enum class SyncKind : uint32_t { kFile = 0, kData = 1, kFileSystem = 2 };
  Result<void> Sync(gofer::Handle h, SyncKind kind);
  Result<gofer::Attr> Allocate(gofer::Handle h, int mode, int64_t offset, int64_t length);
  // SEEK_DATA, SEEK_HOLE.
  Result<int64_t> Seek(gofer::Handle h, int64_t offset, int whence);
  Result<std::string> GetXattr(gofer::Handle h, std::string_view name);
  Result<void> SetXattr(gofer::Handle h, std::string_view name, std::string_view value, int flags);
  Result<std::vector<std::string>> ListXattr(gofer::Handle h);
  Result<void> RemoveXattr(gofer::Handle h, std::string_view name);

  // Gives the gofer a copy of a descriptor that the caller of runsc handed in, for the calls that the sentry may not
  // make itself.
  struct Stdio {
    gofer::Handle handle;
    gofer::Attr attr;
    int status_flags;  // O_RDWR, O_APPEND, ...
  };
  Result<Stdio> StdioAdd(int fd);
  Result<int64_t> StdioSeek(gofer::Handle h, int64_t offset, int whence);
  Result<void> StdioSync(gofer::Handle h, bool data_only);
  Result<void> StdioTruncate(gofer::Handle h, uint64_t size);
  Result<gofer::Attr> StdioGetAttr(gofer::Handle h);

  // Gives a handle back. Takes no lock and makes no call: handles travel in batches with later calls.
  void Forget(gofer::Handle h);
  // Sends what Forget has collected.
  void FlushForgotten();

  // Requests so far; for tests and statistics.
  uint64_t round_trips() const { return round_trips_.load(std::memory_order_relaxed); }
  // True once the gofer is gone or broke the protocol.
  bool dead() const { return dead_.load(std::memory_order_relaxed); }

 private:
  struct Connection {
    ScopedFd socket;
    Mutex mu{LockRank::kGofer};  // held over the round trip: the connection carries one request at a time
    uint64_t sequence = 0;
  };
  struct Forgotten {
    gofer::Handle handle;
    Forgotten* next;
  };

  GoferClient() = default;
  ~GoferClient() override;
  // One round trip. `payload` receives the reply's payload, `payload_size` its length. Fewer or more descriptors than
  // asked for break the protocol; when this process has no room for them it answers kENFILE, but for `fds_may_lack`.
  // The error of the reply is the result's, but for `partial`, where it stays in `reply`.
  struct Exchange {
    gofer::Request request = {};
    std::string_view name, data;
    gofer::Reply reply = {};
    std::span<std::byte> payload;
    size_t payload_size = 0;
    int send_fd = -1;
    gofer::ReceivedFds received;
    size_t max_fds = 0;
    bool fds_may_lack = false;  // else exactly max_fds
    bool partial = false;
  };
  Result<void> Call(gofer::Op op, Exchange& x);
  Result<void> CallOn(Connection& c, Exchange& x);
  Result<Object> MakeObject(gofer::Op op, gofer::Handle dir, std::string_view name, std::string_view data,
                            NewOwner owner, bool wants_fd);
  Errno Broken(const char* what);

  std::vector<std::unique_ptr<Connection>> connections_;  // constant after construction
  std::atomic<bool> dead_{false};
  std::atomic<uint64_t> round_trips_{0};
  std::atomic<Forgotten*> forgotten_{nullptr};
  std::atomic<uint32_t> forgotten_count_{0};
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_GOFER_CLIENT_H_
