// Lookup, attributes, targets: what does not change the host.
#include <fcntl.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

// Whether readlink of a symlink leaves its access time alone. A look-up must not change it; on a mount that the guest
// writes to it could be seen. What mount(8) says of relatime, nanoseconds.
bool ReadsWithoutTrace(const Node& node, const Attr& attr) {
  if (node.read_only()) return true;
  constexpr int64_t kDay = int64_t{24} * 3600 * 1'000'000'000;
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return attr.atime > attr.mtime && attr.atime > attr.ctime && now.tv_sec * 1'000'000'000 - attr.atime < kDay;
}

// Puts a symlink's target at `to`, which has room for kMaxTarget; its length. 0 when it cannot, or should not, be read.
size_t ReadTarget(const Node& link, const Attr& attr, std::byte* to) {
  if (!ReadsWithoutTrace(link, attr)) return 0;
  ssize_t n = readlinkat(link.fd(), "", reinterpret_cast<char*>(to), kMaxTarget);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

// Takes the next name off a packed list.
Result<std::string_view> NextName(std::string_view& rest) {
  uint16_t length;
  if (rest.size() < sizeof length) return kEINVAL;
  memcpy(&length, rest.data(), sizeof length);
  rest.remove_prefix(sizeof length);
  if (rest.size() < length) return kEINVAL;
  std::string_view name = rest.substr(0, length);
  rest.remove_prefix(length);
  return name;
}

}  // namespace

Result<void> Server::Attach(const Incoming& in, Outgoing& out) {
  if (in.request.value >= mounts_.size()) return kENOENT;
  const GoferMount& mount = mounts_[in.request.value];
  TRY(ReadAttr(mount.root.get(), out.reply.attr));
  uint32_t type = out.reply.attr.mode & S_IFMT;
  if (type != S_IFDIR && type != S_IFREG) return kENOTDIR;
  int fd = openat(AT_FDCWD, FdName(mount.root.get()).c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return HostErrno();
  out.reply.handle = nodes_.Insert(MakeRef<Node>(ScopedFd(fd), out.reply.attr, mount.read_only));
  if (out.reply.handle == 0) return kENFILE;
  return {};
}

// By its name, in place of O_PATH and a second open of that, which takes twice as long.
Result<ScopedFd> Server::OpenRegular(const Node& dir, const char* name) {
  // A descriptor for as long as the sentry knows the file is a burden to the server of a network's file system.
  if (!devices_.NamesOf(dir.fd(), dir.device()).all_listed) return kEOPNOTSUPP;
  ReaderLock lock(moves_mu_);
  struct statx is;
  if (statx(dir.fd(), name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &is) != 0) return HostErrno();
  if (!S_ISREG(is.stx_mode)) return kENXIO;
  // As Reopen's.
  return OpenBeneathAtOnce(dir.fd(), name, O_RDONLY | O_NOFOLLOW | (dir.read_only() ? O_NOATIME : 0));
}

Result<RefPtr<Node>> Server::LookUp(const Node& dir, const char* name, WalkStep& step, Opening opening) {
  Result<ScopedFd> opened = kENXIO;
  if (opening == Opening::kListing) {
    // Nobody has asked for the listing: no trace of it.
    opened = OpenBeneath(dir.fd(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME, 0);
  } else if (opening == Opening::kContent) {
    opened = OpenRegular(dir, name);
  }
  const bool open = opened.ok();
  if (!open) opened = OpenBeneath(dir.fd(), name, O_PATH | O_NOFOLLOW, 0);
  ScopedFd fd = TRY(std::move(opened));
  TRY(ReadAttr(fd.get(), step.attr));
  // The host has put something else there meanwhile.
  if (open && opening == Opening::kContent && !S_ISREG(step.attr.mode)) return LookUp(dir, name, step);
  Node::Kind kind = Node::Kind::kObject;
  uint64_t device = uint64_t{step.attr.dev_major} << 32 | step.attr.dev_minor;
  if (device != dir.device() && TRY(devices_.IsKernelInterface(fd.get(), device))) kind = Node::Kind::kSealed;
  auto node = MakeRef<Node>(std::move(fd), step.attr, dir.read_only(), kind, open);
  step.handle = nodes_.Insert(node);
  if (step.handle == 0) return kENFILE;
  return node;
}

Result<void> Server::Walk(const Incoming& in, Outgoing& out) {
  if (in.request.count == 0 || in.request.count > kMaxWalk || !in.data.empty()) return kEINVAL;
  RefPtr<Node> at = TRY(NodeOf(in.request.handle));
  std::string_view rest = in.name;
  for (uint32_t i = 0; i < in.request.count; ++i) {
    std::string name = TRY(CheckedName(TRY(NextName(rest))));
    if (!at->is_dir()) return kENOTDIR;
    if (at->kind() == Node::Kind::kSealed) return kENOENT;
    WalkStep step = {};
    at = TRY(LookUp(*at, name.c_str(), step));
    out.Append(&step, sizeof step);
    ++out.reply.count;
    if (at->type() == S_IFLNK) {
      // The target saves the round trip that following the link would take.
      out.payload_size += ReadTarget(*at, step.attr, out.payload.data() + out.payload_size);
      if (i + 1 < in.request.count) return kELOOP;
    }
  }
  return {};
}

void Server::LookUpOne(const Node& dir, std::string_view given, bool directory, uint32_t flags, Looked& looked) {
  Result<std::string> name = CheckedName(given);
  Result<RefPtr<Node>> node = kENOENT;
  WalkStep step = {};
  if (!name.ok()) {
    node = name.error();
  } else if (dir.kind() != Node::Kind::kSealed) {
    const bool wanted = (flags & (directory ? kList : kDonate)) != 0;
    const Opening opening = directory ? Opening::kListing : Opening::kContent;
    node = LookUp(dir, name->c_str(), step, wanted ? opening : Opening::kPath);
  }
  Found& found = looked.found;
  if (!node.ok()) {
    found.error = static_cast<int32_t>(node.error());
    return;
  }
  looked.node = *node;
  found.handle = step.handle;
  found.attr = step.attr;
  std::byte extra[std::max(kMaxTarget, kMaxListed)];
  if (looked.node->type() == S_IFLNK) {
    found.extra_length = static_cast<uint16_t>(ReadTarget(*looked.node, step.attr, extra));
  } else if (looked.node->is_dir() && (flags & kList) != 0) {
    ListShort(*looked.node, found, extra);
  } else if (looked.node->type() == S_IFREG && (flags & kDonate) != 0 && !looked.node->is_open()) {
    looked.file = Reopen(*looked.node, O_RDONLY).value_or(ScopedFd());
  }
  looked.extra.assign(extra, extra + found.extra_length);
}

Result<void> Server::LookUpNames(const Incoming& in, Outgoing& out) {
  const Request& r = in.request;
  if (r.count == 0 || r.count > kMaxLookUp || !in.data.empty() || (r.flags & ~uint32_t{kDonate | kList}) != 0) {
    return kEINVAL;
  }
  std::string_view names[kMaxLookUp];
  std::string_view rest = in.name;
  for (uint32_t i = 0; i < r.count; ++i) names[i] = TRY(NextName(rest));
  RefPtr<Node> dir = TRY(NodeOf(r.handle));
  if (!dir->is_dir()) return kENOTDIR;
  Looked all[kMaxLookUp];
  assistant_.Share(r.count, [&](uint32_t i) { LookUpOne(*dir, names[i], (r.value >> i & 1) != 0, r.flags, all[i]); });
  // The first record always fits.
  while (out.reply.count < r.count && out.payload_size + sizeof(Found) + kMaxTarget <= kMaxPayload) {
    Looked& looked = all[out.reply.count];
    Found& found = looked.found;
    // Listings take the room that records do not need.
    const size_t records = (r.count - out.reply.count) * sizeof(Found) + kMaxTarget;
    if (found.listing != 0 && out.payload_size + records + looked.extra.size() > kMaxPayload) {
      found.listing = 0;
      found.extra_length = 0;
      looked.extra.clear();
    }
    if (looked.file.valid()) {
      out.Give(std::move(looked.file));
      found.has_fd = 1;
    } else if (looked.node && looked.node->type() == S_IFREG && looked.node->is_open()) {
      out.Lend(looked.node);
      found.has_fd = 1;
    }
    out.Append(&found, sizeof found);
    out.Append(looked.extra.data(), looked.extra.size());
    ++out.reply.count;
  }
  // The client asks again for what had no room.
  for (uint32_t i = out.reply.count; i < r.count; ++i) {
    if (all[i].node) (void)nodes_.Remove(all[i].found.handle);
  }
  return {};
}

Result<void> Server::GetAttr(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  return ReadAttr(node->fd(), out.reply.attr);
}

Result<void> Server::Readlink(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  if (node->type() != S_IFLNK) return kEINVAL;
  ssize_t n = readlinkat(node->fd(), "", reinterpret_cast<char*>(out.payload.data()), kMaxTarget);
  if (n < 0) return HostErrno();
  out.payload_size = n;
  return {};
}

Result<void> Server::StatFileSystem(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  struct statfs st;
  if (fstatfs(node->fd(), &st) != 0) return HostErrno();
  StatFs answer = {};
  answer.type = static_cast<uint64_t>(st.f_type);
  answer.block_size = st.f_bsize;
  answer.blocks = st.f_blocks;
  answer.blocks_free = st.f_bfree;
  answer.blocks_available = st.f_bavail;
  answer.files = st.f_files;
  answer.files_free = st.f_ffree;
  memcpy(&answer.fsid, &st.f_fsid, sizeof answer.fsid);
  answer.name_length = st.f_namelen;
  answer.flags = st.f_flags;
  memcpy(out.payload.data(), &answer, sizeof answer);
  out.payload_size = sizeof answer;
  return {};
}

Result<void> Server::Forget(const Incoming& in, Outgoing&) {
  if (in.request.count > kMaxForget || in.name.size() != in.request.count * sizeof(Handle)) return kEINVAL;
  Result<void> result;
  for (uint32_t i = 0; i < in.request.count; ++i) {
    Handle handle;
    memcpy(&handle, in.name.data() + i * sizeof handle, sizeof handle);
    Result<void> removed = nodes_.Remove(handle);
    if (!removed.ok()) result = removed;
  }
  return result;
}

}  // namespace moat::gofer
