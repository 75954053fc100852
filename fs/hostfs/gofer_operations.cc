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
  if (!buffer) buffer = std::make_unique<std::byte[]>(gofer::kMaxPayload);
  return {buffer.get(), gofer::kMaxPayload};
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool IsEntryName(std::string_view name) {
  return !name.empty() && name.size() <= gofer::kMaxName && name.find('/') == name.npos && name.find('\0') == name.npos;
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
  char packed[gofer::kMaxWalk * (gofer::kMaxName + sizeof(uint16_t))];
  size_t packed_size = 0;
  for (std::string_view name : names) {
    if (name.size() > gofer::kMaxName) return kENAMETOOLONG;
    uint16_t length = static_cast<uint16_t>(name.size());
    memcpy(packed + packed_size, &length, sizeof length);
    memcpy(packed + packed_size + sizeof length, name.data(), length);
    packed_size += sizeof length + length;
  }
  alignas(8) std::byte small[sizeof(gofer::WalkStep) * gofer::kMaxWalk + gofer::kMaxTarget];
  Exchange x;
  x.request.handle = dir;
  x.request.count = static_cast<uint32_t>(names.size());
  x.name = {packed, packed_size};
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
    if (walked.target.size() > gofer::kMaxTarget || walked.target.find('\0') != walked.target.npos) {
      return Broken("a symlink that no file system has");
    }
  }
  return walked;
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
  x.wants_fd = true;
  TRY(Call(Op::kOpen, x));
  CHECKED_ATTR(x);
  return Opened{std::move(x.fd), x.reply.attr};
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
  x.wants_fd = wants_fd;
  TRY(Call(op, x));
  CHECKED_ATTR(x);
  if (x.reply.handle == 0) return Broken("a new object without a handle");
  return Object{x.reply.handle, x.reply.attr, std::move(x.fd)};
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
  listing.at_end = x.reply.value == 1;
  std::span<const std::byte> rest = x.payload.first(x.payload_size);
  for (uint32_t i = 0; i < x.reply.count; ++i) {
    gofer::DirEntry entry;
    if (rest.size() < sizeof entry) return Broken("a directory entry cut short");
    memcpy(&entry, rest.data(), sizeof entry);
    rest = rest.subspan(sizeof entry);
    if (rest.size() < entry.name_length) return Broken("a directory entry cut short");
    std::string_view name = Text(rest.first(entry.name_length));
    rest = rest.subspan(entry.name_length);
    if (!IsEntryName(name) || entry.next < 0 || entry.type > 15) return Broken("a name that no directory has");
    listing.entries.push_back({std::string(name), entry.ino, entry.next, entry.dev_major, entry.dev_minor, entry.type});
  }
  if (!rest.empty() || (listing.entries.empty() && !listing.at_end)) return Broken("a listing that leads nowhere");
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
