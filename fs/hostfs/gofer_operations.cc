// The operations of the protocol, one function each: fill in the request, check what came back.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>

#include "fs/hostfs/gofer_client.h"

namespace moat {

using gofer::Op;

namespace {

// Replies with long payloads land here: one buffer per host thread, because fiber stacks are small. No fiber can
// be switched between a call and the parsing of its reply: nothing in between suspends.
std::span<std::byte> LargeBuffer() {
  thread_local std::unique_ptr<std::byte[]> buffer;
  if (!buffer) buffer = std::make_unique_for_overwrite<std::byte[]>(gofer::kMaxPayload);
  return {buffer.get(), gofer::kMaxPayload};
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// As a walk's and a lookup's payload has them.
Result<std::string> Packed(std::span<const std::string_view> names) {
  std::string packed;
  for (std::string_view name : names) {
    if (name.size() > gofer::kMaxName) return kENAMETOOLONG;
    uint16_t length = static_cast<uint16_t>(name.size());
    packed.append(reinterpret_cast<const char*>(&length), sizeof length).append(name);
  }
  return packed;
}

bool IsTarget(std::string_view target) {
  return target.size() <= gofer::kMaxTarget && target.find('\0') == target.npos;
}

bool IsEntryName(std::string_view name) {
  return !name.empty() && name.size() <= gofer::kMaxName && name.find('/') == name.npos && name.find('\0') == name.npos;
}

// False for records that no directory has.
bool ParseEntries(std::span<const std::byte> rest, std::vector<GoferClient::Entry>& entries) {
  while (!rest.empty()) {
    gofer::DirEntry entry;
    if (rest.size() < sizeof entry) return false;
    memcpy(&entry, rest.data(), sizeof entry);
    rest = rest.subspan(sizeof entry);
    if (rest.size() < entry.name_length) return false;
    std::string_view name = Text(rest.first(entry.name_length));
    rest = rest.subspan(entry.name_length);
    if (!IsEntryName(name) || entry.next < 0 || entry.type > 15) return false;
    entries.push_back({std::string(name), entry.ino, entry.next, entry.dev_major, entry.dev_minor, entry.type});
  }
  return true;
}

}  // namespace

#define CHECKED_ATTR(x) \
  if (!gofer::IsValidAttr((x).reply.attr)) return Broken("attributes that no file has")

Result<GoferClient::Object> GoferClient::Attach(uint32_t mount) {
  Exchange x;
  x.request.value = mount;
  TRY(Call(Op::kAttach, x));
  CHECKED_ATTR(x);
  return Object{x.reply.handle, x.reply.attr, {}};
}

Result<GoferClient::Walked> GoferClient::Walk(gofer::Handle dir, std::span<const std::string_view> names) {
  if (names.empty() || names.size() > gofer::kMaxWalk) return kEINVAL;
  std::string packed = TRY(Packed(names));
  alignas(8) std::byte small[sizeof(gofer::WalkStep) * gofer::kMaxWalk + gofer::kMaxTarget];
  Exchange x;
  x.request.handle = dir;
  x.request.count = static_cast<uint32_t>(names.size());
  x.name = packed;
  x.payload = small;
  x.partial = true;
  TRY(Call(Op::kWalk, x));
  size_t steps_size = x.reply.count * sizeof(gofer::WalkStep);
  if (x.reply.count > names.size() || steps_size > x.payload_size) return Broken("a walk longer than asked");
  if (x.reply.error == 0 && x.reply.count != names.size()) return Broken("a walk shorter than asked");
  Walked walked;
  walked.error = static_cast<Errno>(x.reply.error);
  walked.steps.resize(x.reply.count);
  if (steps_size != 0) memcpy(walked.steps.data(), small, steps_size);
  for (const gofer::WalkStep& step : walked.steps) {
    if (!gofer::IsValidAttr(step.attr) || step.handle == 0) return Broken("attributes that no file has");
  }
  if (!walked.steps.empty() && S_ISLNK(walked.steps.back().attr.mode)) {
    walked.target = Text({small + steps_size, x.payload_size - steps_size});
    if (!IsTarget(walked.target)) return Broken("a symlink that no file system has");
  }
  return walked;
}

Result<std::vector<GoferClient::Found>> GoferClient::LookUp(gofer::Handle dir, std::span<const std::string_view> names,
                                                            uint32_t flags, uint64_t directories) {
  if (names.empty() || names.size() > gofer::kMaxLookUp) return kEINVAL;
  std::string packed = TRY(Packed(names));
  Exchange x;
  x.request.handle = dir;
  x.request.count = static_cast<uint32_t>(names.size());
  x.request.flags = flags;
  x.request.value = directories;
  x.name = packed;
  x.payload = LargeBuffer();
  x.max_fds = (flags & gofer::kDonate) != 0 ? names.size() : 0;
  x.fds_may_lack = true;
  TRY(Call(Op::kLookUp, x));
  if (x.reply.count == 0 || x.reply.count > names.size()) return Broken("a lookup of names that were not asked for");
  std::vector<Found> found(x.reply.count);
  std::span<const std::byte> rest = x.payload.first(x.payload_size);
  size_t fds = 0;
  for (Found& f : found) {
    gofer::Found record;
    if (rest.size() < sizeof record) return Broken("a lookup cut short");
    memcpy(&record, rest.data(), sizeof record);
    rest = rest.subspan(sizeof record);
    if (rest.size() < record.extra_length) return Broken("a lookup cut short");
    std::span<const std::byte> extra = rest.first(record.extra_length);
    rest = rest.subspan(extra.size());
    if (record.error != 0) {
      if (record.error < 0 || record.error > gofer::kMaxErrno || record.handle != 0 || !extra.empty() ||
          record.listing != 0 || record.has_fd != 0) {
        return Broken("an error with an object");
      }
      f.error = static_cast<Errno>(record.error);
      continue;
    }
    if (!gofer::IsValidAttr(record.attr) || record.handle == 0) return Broken("attributes that no file has");
    uint32_t type = record.attr.mode & S_IFMT;
    f.handle = record.handle;
    f.attr = record.attr;
    f.listing.at_end = record.listing != 0;
    f.listing.exact = (record.listing & gofer::kExact) != 0;
    if (f.listing.at_end) {
      if (type != S_IFDIR || (flags & gofer::kList) == 0 || (record.listing & gofer::kAtEnd) == 0) {
        return Broken("a listing of no directory");
      }
      if (!ParseEntries(extra, f.listing.entries)) return Broken("a name that no directory has");
    } else if (!extra.empty()) {
      f.target = Text(extra);
      if (type != S_IFLNK || !IsTarget(f.target)) return Broken("a symlink that no file system has");
    }
    if (record.has_fd == 0) continue;
    if (record.has_fd != 1 || type != S_IFREG || fds == x.reply.fd_count) return Broken("a descriptor of nothing");
    if (!x.received.lost) f.fd = std::move(x.received.fds[fds]);
    ++fds;
  }
  if (!rest.empty() || fds != x.reply.fd_count) return Broken("a lookup longer than asked");
  return found;
}

Result<gofer::Attr> GoferClient::GetAttr(gofer::Handle h) {
  Exchange x;
  x.request.handle = h;
  TRY(Call(Op::kGetAttr, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

Result<gofer::Attr> GoferClient::SetAttr(gofer::Handle h, const gofer::Request& change) {
  Exchange x;
  x.request = change;
  x.request.handle = h;
  TRY(Call(Op::kSetAttr, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

Result<GoferClient::Opened> GoferClient::Open(gofer::Handle h, int access_mode) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = static_cast<uint32_t>(access_mode);
  x.max_fds = 1;
  TRY(Call(Op::kOpen, x));
  CHECKED_ATTR(x);
  return Opened{std::move(x.received.fds[0]), x.reply.attr};
}

Result<GoferClient::Object> GoferClient::MakeObject(Op op, gofer::Handle dir, std::string_view name,
                                                    std::string_view data, NewOwner owner, bool wants_fd) {
  Exchange x;
  x.request.handle = dir;
  x.request.mode = owner.mode;
  x.request.uid = owner.uid;
  x.request.gid = owner.gid;
  x.name = name;
  x.data = data;
  x.max_fds = wants_fd ? 1 : 0;
  TRY(Call(op, x));
  CHECKED_ATTR(x);
  if (x.reply.handle == 0) return Broken("a new object without a handle");
  return Object{x.reply.handle, x.reply.attr, wants_fd ? std::move(x.received.fds[0]) : ScopedFd()};
}

Result<GoferClient::Object> GoferClient::Create(gofer::Handle dir, std::string_view name, NewOwner owner) {
  return MakeObject(Op::kCreate, dir, name, {}, owner, true);
}
Result<GoferClient::Object> GoferClient::CreateTemporary(gofer::Handle dir, NewOwner owner) {
  return MakeObject(Op::kCreateTemporary, dir, {}, {}, owner, true);
}
Result<GoferClient::Object> GoferClient::Mkdir(gofer::Handle dir, std::string_view name, NewOwner owner) {
  return MakeObject(Op::kMkdir, dir, name, {}, owner, false);
}
Result<GoferClient::Object> GoferClient::Mknod(gofer::Handle dir, std::string_view name, NewOwner owner) {
  return MakeObject(Op::kMknod, dir, name, {}, owner, false);
}
Result<GoferClient::Object> GoferClient::Symlink(gofer::Handle dir, std::string_view name, std::string_view target,
                                                 NewOwner owner) {
  return MakeObject(Op::kSymlink, dir, name, target, owner, false);
}

Result<gofer::Attr> GoferClient::Link(gofer::Handle dir, std::string_view name, gofer::Handle target) {
  Exchange x;
  x.request.handle = dir;
  x.request.handle2 = target;
  x.name = name;
  TRY(Call(Op::kLink, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

Result<gofer::Attr> GoferClient::Unlink(gofer::Handle dir, std::string_view name, gofer::Handle child, bool directory) {
  Exchange x;
  x.request.handle = dir;
  x.request.handle2 = child;
  x.request.flags = directory ? AT_REMOVEDIR : 0;
  x.name = name;
  TRY(Call(Op::kUnlink, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

Result<void> GoferClient::Rename(gofer::Handle old_dir, std::string_view old_name, gofer::Handle new_dir,
                                 std::string_view new_name, unsigned flags) {
  Exchange x;
  x.request.handle = old_dir;
  x.request.handle2 = new_dir;
  x.request.flags = flags;
  x.name = old_name;
  x.data = new_name;
  return Call(Op::kRename, x);
}

Result<GoferClient::Listing> GoferClient::Readdir(gofer::Handle dir, int64_t cookie) {
  Exchange x;
  x.request.handle = dir;
  x.request.value = static_cast<uint64_t>(cookie);
  x.payload = LargeBuffer();
  TRY(Call(Op::kReaddir, x));
  Listing listing;
  listing.at_end = (x.reply.value & gofer::kAtEnd) != 0;
  listing.exact = (x.reply.value & gofer::kExact) != 0;
  if (!ParseEntries(x.payload.first(x.payload_size), listing.entries)) return Broken("a name that no directory has");
  if (listing.entries.size() != x.reply.count || (listing.entries.empty() && !listing.at_end)) {
    return Broken("a listing that leads nowhere");
  }
  return listing;
}

Result<std::string> GoferClient::Readlink(gofer::Handle h) {
  alignas(8) std::byte buffer[gofer::kMaxTarget];
  Exchange x;
  x.request.handle = h;
  x.payload = buffer;
  TRY(Call(Op::kReadlink, x));
  std::string target(Text(x.payload.first(x.payload_size)));
  if (target.find('\0') != target.npos) return Broken("a symlink that no file system has");
  return target;
}

Result<gofer::StatFs> GoferClient::StatFileSystem(gofer::Handle h) {
  gofer::StatFs st;
  Exchange x;
  x.request.handle = h;
  x.payload = std::as_writable_bytes(std::span(&st, 1));
  TRY(Call(Op::kStatFs, x));
  if (x.payload_size != sizeof st) return Broken("statfs cut short");
  return st;
}

Result<void> GoferClient::Sync(gofer::Handle h, SyncKind kind) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = static_cast<uint32_t>(kind);
  return Call(Op::kSync, x);
}

Result<gofer::Attr> GoferClient::Allocate(gofer::Handle h, int mode, int64_t offset, int64_t length) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = static_cast<uint32_t>(mode);
  x.request.value = static_cast<uint64_t>(offset);
  x.request.value2 = static_cast<uint64_t>(length);
  TRY(Call(Op::kAllocate, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

Result<int64_t> GoferClient::Seek(gofer::Handle h, int64_t offset, int whence) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = static_cast<uint32_t>(whence);
  x.request.value = static_cast<uint64_t>(offset);
  TRY(Call(Op::kSeek, x));
  if (x.reply.value > INT64_MAX) return Broken("an offset that no file has");
  return static_cast<int64_t>(x.reply.value);
}

Result<std::string> GoferClient::GetXattr(gofer::Handle h, std::string_view name) {
  Exchange x;
  x.request.handle = h;
  x.name = name;
  x.payload = LargeBuffer();
  TRY(Call(Op::kGetXattr, x));
  if (x.payload_size > gofer::kMaxXattrValue) return Broken("an attribute that no file has");
  return std::string(Text(x.payload.first(x.payload_size)));
}

Result<void> GoferClient::SetXattr(gofer::Handle h, std::string_view name, std::string_view value, int flags) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = static_cast<uint32_t>(flags);
  x.name = name;
  x.data = value;
  return Call(Op::kSetXattr, x);
}

Result<std::vector<std::string>> GoferClient::ListXattr(gofer::Handle h) {
  Exchange x;
  x.request.handle = h;
  x.payload = LargeBuffer();
  TRY(Call(Op::kListXattr, x));
  std::vector<std::string> names;
  std::string_view rest = Text(x.payload.first(x.payload_size));
  while (!rest.empty()) {
    size_t end = rest.find('\0');
    if (end == rest.npos || end == 0 || end > gofer::kMaxXattrName) return Broken("a list that no file has");
    names.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  return names;
}

Result<void> GoferClient::RemoveXattr(gofer::Handle h, std::string_view name) {
  Exchange x;
  x.request.handle = h;
  x.name = name;
  return Call(Op::kRemoveXattr, x);
}

Result<GoferClient::Stdio> GoferClient::StdioAdd(int fd) {
  Exchange x;
  x.send_fd = fd;
  TRY(Call(Op::kStdioAdd, x));
  CHECKED_ATTR(x);
  if (x.reply.handle == 0 || x.reply.value > INT32_MAX) return Broken("a descriptor that no process has");
  return Stdio{x.reply.handle, x.reply.attr, static_cast<int>(x.reply.value)};
}

Result<int64_t> GoferClient::StdioSeek(gofer::Handle h, int64_t offset, int whence) {
  Exchange x;
  x.request.handle = h;
  x.request.value = static_cast<uint64_t>(offset);
  x.request.flags = static_cast<uint32_t>(whence);
  TRY(Call(Op::kStdioSeek, x));
  if (x.reply.value > INT64_MAX) return Broken("an offset that no file has");
  return static_cast<int64_t>(x.reply.value);
}

Result<void> GoferClient::StdioSync(gofer::Handle h, bool data_only) {
  Exchange x;
  x.request.handle = h;
  x.request.flags = data_only ? 1 : 0;
  return Call(Op::kStdioSync, x);
}

Result<void> GoferClient::StdioTruncate(gofer::Handle h, uint64_t size) {
  Exchange x;
  x.request.handle = h;
  x.request.value = size;
  return Call(Op::kStdioTruncate, x);
}

Result<gofer::Attr> GoferClient::StdioGetAttr(gofer::Handle h) {
  Exchange x;
  x.request.handle = h;
  TRY(Call(Op::kStdioGetAttr, x));
  CHECKED_ATTR(x);
  return x.reply.attr;
}

#undef CHECKED_ATTR

}  // namespace moat
