// Server: answers the requests of one gofer. One instance serves all connections; each connection has a thread.
// The handlers are in server_<topic>.cc.
#ifndef MOAT_RUNSC_GOFER_SERVER_H_
#define MOAT_RUNSC_GOFER_SERVER_H_

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/hostfs/protocol.h"
#include "runsc/gofer/assistant.h"
#include "runsc/gofer/devices.h"
#include "runsc/gofer/gofer.h"
#include "runsc/gofer/node.h"

namespace moat::gofer {

// A request whose lengths add up. `name` and `data` point into the connection's buffer.
struct Incoming {
  const Request& request;
  std::string_view name;
  std::string_view data;
  ScopedFd& fd;  // what came along; kStdioAdd takes it
};

// The answer in the making. `payload` is the connection's buffer.
struct Outgoing {
  Reply reply = {};
  std::span<std::byte> payload;
  size_t payload_size = 0;

  // `payload` has room.
  void Append(const void* bytes, size_t size) {
    if (size != 0) memcpy(payload.data() + payload_size, bytes, size);
    payload_size += size;
  }
  // What travels along, in this order: a descriptor of its own, or that of a node.
  void Give(ScopedFd fd) {
    fds.push_back(fd.get());
    given.push_back(std::move(fd));
  }
  void Lend(RefPtr<Node> node) {
    fds.push_back(node->fd());
    lent.push_back(std::move(node));
  }
  std::vector<int> fds;
  std::vector<ScopedFd> given;
  std::vector<RefPtr<Node>> lent;
};

class Server {
 public:
  // `mounts` must outlive the server.
  explicit Server(const std::vector<GoferMount>& mounts) : mounts_(mounts) {}

  // What a worker thread does first: /proc/self/fd becomes its working directory and its umask 0, both apart from
  // the other threads of the process.
  static Result<void> PrepareThread(int proc_self_fd);

  // What one more thread does until StopAssisting, for which all calls of Serve must have ended.
  void Assist() { assistant_.Work(); }
  void StopAssisting() { assistant_.Stop(); }

  // Answers requests until the peer closes `socket` or breaks the protocol.
  void Serve(int socket);

  size_t NodeCountForTesting() const { return nodes_.size(); }

 private:
  using Handler = Result<void> (Server::*)(const Incoming&, Outgoing&);
  static Handler HandlerOf(Op op);

  Result<void> Attach(const Incoming& in, Outgoing& out);
  Result<void> Walk(const Incoming& in, Outgoing& out);
  Result<void> LookUpNames(const Incoming& in, Outgoing& out);
  Result<void> GetAttr(const Incoming& in, Outgoing& out);
  Result<void> SetAttr(const Incoming& in, Outgoing& out);
  Result<void> Open(const Incoming& in, Outgoing& out);
  Result<void> Create(const Incoming& in, Outgoing& out);
  Result<void> CreateTemporary(const Incoming& in, Outgoing& out);
  Result<void> Mkdir(const Incoming& in, Outgoing& out);
  Result<void> Mknod(const Incoming& in, Outgoing& out);
  Result<void> Symlink(const Incoming& in, Outgoing& out);
  Result<void> Link(const Incoming& in, Outgoing& out);
  Result<void> Unlink(const Incoming& in, Outgoing& out);
  Result<void> Rename(const Incoming& in, Outgoing& out);
  Result<void> Readdir(const Incoming& in, Outgoing& out);
  Result<void> Readlink(const Incoming& in, Outgoing& out);
  Result<void> StatFileSystem(const Incoming& in, Outgoing& out);
  Result<void> Sync(const Incoming& in, Outgoing& out);
  Result<void> Allocate(const Incoming& in, Outgoing& out);
  Result<void> Seek(const Incoming& in, Outgoing& out);
  Result<void> GetXattr(const Incoming& in, Outgoing& out);
  Result<void> SetXattr(const Incoming& in, Outgoing& out);
  Result<void> ListXattr(const Incoming& in, Outgoing& out);
  Result<void> RemoveXattr(const Incoming& in, Outgoing& out);
  Result<void> Forget(const Incoming& in, Outgoing& out);
  Result<void> StdioAdd(const Incoming& in, Outgoing& out);
  Result<void> StdioSeek(const Incoming& in, Outgoing& out);
  Result<void> StdioSync(const Incoming& in, Outgoing& out);
  Result<void> StdioTruncate(const Incoming& in, Outgoing& out);
  Result<void> StdioGetAttr(const Incoming& in, Outgoing& out);

  // The node of `handle`; the second form also wants it on a writable mount (kEROFS), the third a directory (kENOTDIR).
  Result<RefPtr<Node>> NodeOf(Handle handle) const;
  Result<RefPtr<Node>> WritableNode(Handle handle) const;
  Result<RefPtr<Node>> WritableDirectory(Handle handle) const;
  Result<RefPtr<Node>> StdioOf(Handle handle) const;
  // Opens `name` of `dir` as O_PATH, makes a node and puts handle and attributes into `step`. Directories can be opened
  // for their listing at once, regular files for reading; what is none or cannot be is looked at only.
  enum class Opening { kPath, kListing, kContent };
  Result<RefPtr<Node>> LookUp(const Node& dir, const char* name, WalkStep& step, Opening opening = Opening::kPath);
  Result<ScopedFd> OpenRegular(const Node& dir, const char* name);
  // What was found out about one name of a lookup.
  struct Looked {
    Found found = {};
    RefPtr<Node> node;             // null: there is an error
    std::vector<std::byte> extra;  // what follows the record
    ScopedFd file;                 // a descriptor for the client, unless it gets the node's own
  };
  // On any thread. `directory`: it is listed as one.
  void LookUpOne(const Node& dir, std::string_view name, bool directory, uint32_t flags, Looked& looked);
  // Puts the listing of `dir` at `to`, and what it is into `found`, unless it is long.
  void ListShort(const Node& dir, Found& found, std::span<std::byte> to);
  class NamesCheck;  // whether a listing tells all
  // Gives a new object (`fd` O_PATH) its owner and mode and makes a node.
  Result<void> Adopt(const Node& dir, ScopedFd fd, const Request& request, Outgoing& out);
  Result<void> AdoptFile(const Node& dir, ScopedFd file, const Request& request, Outgoing& out);

  const std::vector<GoferMount>& mounts_;
  NodeTable nodes_;
  Devices devices_;
  Assistant assistant_;
  // Held while a name that was a regular file's is opened, so that nobody can put a FIFO or a device there through the
  // gofer; for writing by whatever gives an object that there is another name.
  SharedMutex moves_mu_{LockRank::kGofer};
};

// A name that may be used in a directory: 1..255 bytes, no '/', no NUL, not "." or "..". Zero-terminated.
Result<std::string> CheckedName(std::string_view name);
// One component beneath `dir`, never through a symlink, a magic link or upwards.
Result<ScopedFd> OpenBeneath(int dir, const char* name, uint64_t flags, uint32_t mode);
// The same with O_NONBLOCK, which kEAGAIN may come of.
Result<ScopedFd> OpenBeneathAtOnce(int dir, const char* name, uint64_t flags);
// Opens the object of an O_PATH descriptor anew. For regular files and directories only: nothing else is opened.
Result<ScopedFd> Reopen(const Node& node, int flags);
Result<void> ReadAttr(int fd, Attr& attr);

}  // namespace moat::gofer

#endif  // MOAT_RUNSC_GOFER_SERVER_H_
