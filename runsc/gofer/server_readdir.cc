// Directory listings, and whether they tell all that can be looked up.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cctype>
#include <cstring>
#include <optional>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

// getdents64(2)'s record head; the name follows.
struct KernelDirent {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
};
constexpr size_t kDirentNameOffset = 19;

// Whether a directory says that it finds its entries in the other case too (ext4's and tmpfs's casefold); nothing when
// its file system has no such flags.
std::optional<bool> SaysFolding(int stream) {
  int flags = 0;
  if (ioctl(stream, FS_IOC_GETFLAGS, &flags) != 0) return std::nullopt;
  return (flags & FS_CASEFOLD_FL) != 0;
}

bool IsSame(int dir, const std::string& name, const std::string& other) {
  Result<ScopedFd> b = OpenBeneath(dir, other.c_str(), O_PATH | O_NOFOLLOW, 0);
  if (!b.ok()) return b.error() != kENOENT;
  Result<ScopedFd> a = OpenBeneath(dir, name.c_str(), O_PATH | O_NOFOLLOW, 0);
  Attr attr_a, attr_b;
  if (!a.ok() || !ReadAttr(a->get(), attr_a).ok() || !ReadAttr(b->get(), attr_b).ok()) return true;
  return attr_a.ino == attr_b.ino && attr_a.dev_major == attr_b.dev_major && attr_a.dev_minor == attr_b.dev_minor;
}

struct Record {
  KernelDirent head;
  std::string_view name;
};

// The record at `at`, which moves on.
Record NextRecord(const char* buffer, long& at) {
  Record record;
  memcpy(&record.head, buffer + at, sizeof record.head);
  const char* name = buffer + at + kDirentNameOffset;
  record.name = {name, strnlen(name, record.head.reclen - kDirentNameOffset)};
  at += record.head.reclen;
  return record;
}

// The record as the protocol has it, of the directory `dir`; its size, 0 when it does not fit.
size_t Append(const Record& record, const Attr& dir, std::span<std::byte> to) {
  DirEntry entry = {};
  if (sizeof entry + record.name.size() > to.size()) return 0;
  entry.ino = record.head.ino;
  entry.next = record.head.off;
  entry.dev_major = dir.dev_major;
  entry.dev_minor = dir.dev_minor;
  entry.name_length = static_cast<uint16_t>(record.name.size());
  entry.type = record.head.type;
  memcpy(to.data(), &entry, sizeof entry);
  memcpy(to.data() + sizeof entry, record.name.data(), record.name.size());
  return sizeof entry + record.name.size();
}

}  // namespace

// Whether the listing of a directory is exact (gofer::kExact). It must not find its entries by other names: the first
// one with a letter is tried in the other case. Where there is none, names beyond ASCII are doubtful: theirs is
// Unicode's folding. One directory that does not fold speaks for its file system (XFS's ascii-ci is the whole file
// system's), but for those that have a flag (casefold), which each says itself.
class Server::NamesCheck {
 public:
  NamesCheck(Server& server, const Node& dir, int stream)
      : server_(server),
        dir_(dir.fd()),
        device_(dir.device()),
        known_(server.devices_.NamesOf(dir.fd(), dir.device())),
        said_(known_.all_listed ? SaysFolding(stream) : std::nullopt) {}
  void See(std::string_view name) {
    if (tried_ || !known_.all_listed || (known_.tried && said_)) return;
    std::string other(name);
    for (char& c : other) {
      bool letter = isalpha(static_cast<unsigned char>(c)) != 0;
      tried_ |= letter;
      beyond_ascii_ |= static_cast<unsigned char>(c) >= 0x80;
      if (letter) c = static_cast<char>(c ^ 0x20);
    }
    if (!tried_) return;
    folds_ = IsSame(dir_, std::string(name), other);
    server_.devices_.NoteFolding(device_, folds_);
  }
  bool Exact() const {
    if (!known_.all_listed || said_.value_or(false)) return false;
    if (tried_) return !folds_;
    return known_.tried && said_ ? !known_.folds : !beyond_ascii_;
  }

 private:
  Server& server_;
  const int dir_;
  const uint64_t device_;
  const Devices::Names known_;
  const std::optional<bool> said_;
  bool tried_ = false, folds_ = false, beyond_ascii_ = false;
};

void Server::ListShort(const Node& dir, Found& found, std::span<std::byte> to) {
  to = to.first(std::min(to.size(), kMaxListed));
  // A directory of that size has more names than fit, or had them once.
  if (dir.kind() == Node::Kind::kSealed || found.attr.size > 4 * kMaxListed) return;
  Result<ScopedFd> opened = kEBADF;
  if (!dir.is_open()) {
    // Nobody has asked for this listing: no trace of it.
    opened = OpenBeneath(dir.fd(), ".", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
    if (!opened.ok()) return;
  }
  const int stream = dir.is_open() ? dir.fd() : opened->get();
  NamesCheck names(*this, dir, stream);
  alignas(8) char buffer[kMaxListed];
  size_t size = 0;
  for (;;) {
    long n = syscall(SYS_getdents64, stream, buffer, sizeof buffer);
    if (n < 0) return;
    if (n == 0) break;
    for (long at = 0; at < n;) {
      Record record = NextRecord(buffer, at);
      if (record.name.size() > kMaxName) continue;
      names.See(record.name);
      size_t one = Append(record, found.attr, to.subspan(size));
      if (one == 0) return;
      size += one;
    }
  }
  found.listing = static_cast<uint8_t>(uint64_t{kAtEnd} | (names.Exact() ? uint64_t{kExact} : 0));
  found.extra_length = static_cast<uint16_t>(size);
}

Result<void> Server::Readdir(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  if (!node->is_dir()) return kENOTDIR;
  if (node->kind() == Node::Kind::kSealed) {
    out.reply.value = kAtEnd | kExact;
    return {};
  }
  int64_t cookie = static_cast<int64_t>(in.request.value);
  if (cookie < 0) return kEINVAL;
  Attr attr;
  TRY(ReadAttr(node->fd(), attr));
  alignas(8) char buffer[16 << 10];
  MutexLock lock(node->stream_mutex);
  if (!node->stream.valid()) {
    node->stream = TRY(Reopen(*node, O_RDONLY));
    node->stream_position = 0;
  }
  // Always seek to the start: it makes the host's file system look at the directory's present contents.
  if (cookie == 0 || cookie != node->stream_position) {
    if (lseek(node->stream.get(), cookie, SEEK_SET) < 0) return HostErrno();
    node->stream_position = cookie;
  }
  NamesCheck names(*this, *node, node->stream.get());
  bool at_end = false;
  while (!at_end) {
    // The smallest host record has 24 bytes, ours of that name 36: what is read below always fits.
    if (out.payload_size + 2 * sizeof buffer > kMaxPayload) break;
    long n = syscall(SYS_getdents64, node->stream.get(), buffer, sizeof buffer);
    if (n < 0) {
      Errno error = HostErrno();
      node->stream.Reset();
      if (out.reply.count != 0) break;
      return error;
    }
    if (n == 0) {
      at_end = true;
      // The next listing starts anew: no descriptor for every directory that was ever listed.
      node->stream.Reset();
    }
    for (long at = 0; at < n;) {
      Record record = NextRecord(buffer, at);
      node->stream_position = record.head.off;
      if (record.name.size() > kMaxName) continue;  // longer than a Linux program can say
      names.See(record.name);
      size_t size = Append(record, attr, out.payload.subspan(out.payload_size));
      if (size == 0) return kEIO;
      out.payload_size += size;
      ++out.reply.count;
    }
  }
  out.reply.value = (at_end ? uint64_t{kAtEnd} : 0) | (names.Exact() ? uint64_t{kExact} : 0);
  return {};
}

}  // namespace moat::gofer
