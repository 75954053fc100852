// The gofer protocol: what the sentry (client) and the gofer (server) say to each other over AF_UNIX
// SOCK_SEQPACKET. docs/gofer-protocol.md describes it; this header is its only definition in code.
//
// One packet is one message: a fixed Request or Reply followed by at most kMaxPayload bytes; file descriptors
// travel by SCM_RIGHTS. One request is outstanding per connection. Both sides run on one machine, so numbers
// are in host order. Each side checks every field of the other: neither trusts the other.
#ifndef MOAT_FS_HOSTFS_PROTOCOL_H_
#define MOAT_FS_HOSTFS_PROTOCOL_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace moat::gofer {

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kMaxPayload = 68 << 10;  // the largest xattr value (64 KiB), its name, and room
inline constexpr size_t kMaxReaddirBytes = 64 << 10;
inline constexpr size_t kMaxName = 255;     // NAME_MAX
inline constexpr size_t kMaxTarget = 4095;  // PATH_MAX - 1: a symlink's contents
inline constexpr int32_t kMaxErrno = 4095;
inline constexpr size_t kMaxXattrName = 255;        // XATTR_NAME_MAX
inline constexpr size_t kMaxXattrValue = 64 << 10;  // XATTR_SIZE_MAX, XATTR_LIST_MAX
inline constexpr uint32_t kMaxWalk = 16;            // components of one walk
inline constexpr uint32_t kMaxLookUp = 64;          // names of one lookup, bits of its value, descriptors of its reply
inline constexpr uint32_t kMaxForget = 512;         // handles of one forget

// A gofer-side object id. 0 is none.
using Handle = uint64_t;

enum class Op : uint16_t {
  kAttach = 1,       // value: mount index; handle := root, attr
  kWalk,             // handle: directory, count: components, payload: names; see WalkStep
  kLookUp,           // handle: directory, count: names, payload: names; flags: LookUpFlags; value: bit i is set for a
                     // name that the caller takes for a directory's; see Found
  kGetAttr,          // handle
  kSetAttr,          // handle, mask: kSet*, mode, uid, gid, value: size, atime, mtime; attr := after
  kOpen,             // handle: regular file, flags: O_RDONLY, O_WRONLY or O_RDWR; one fd and attr come back
  kCreate,           // handle: directory, name, mode, uid, gid; handle, attr and one O_RDWR fd come back
  kCreateTemporary,  // handle: directory, mode, uid, gid: O_TMPFILE; as kCreate
  kMkdir,            // handle: directory, name, mode, uid, gid; handle and attr
  kMknod,            // as kMkdir; mode has S_IFIFO or S_IFSOCK
  kSymlink,          // as kMkdir; second payload: target
  kLink,             // handle: directory, name, handle2: target; attr := the target's
  kUnlink,           // handle: directory, name, flags: 0 or AT_REMOVEDIR, handle2: the child or 0; attr := the child's
  kRename,           // handle: old directory, name; handle2: new directory, second payload: new name; flags: RENAME_*
  kReaddir,          // handle: directory, value: cookie (0: start); payload := DirEntry records; value := ReaddirFlags
  kReadlink,         // handle: symlink; payload := target
  kStatFs,           // handle; payload := StatFs
  kSync,             // handle, flags: 1 data only, 2 the whole file system
  kAllocate,         // handle, flags: FALLOC_FL_*, value: offset, value2: length; attr := after
  kSeek,             // handle: regular file, flags: SEEK_DATA or SEEK_HOLE, value: offset; value := result
  kGetXattr,         // handle, name; payload := value
  kSetXattr,         // handle, name, second payload: value, flags: XATTR_*
  kListXattr,        // handle; payload := NUL-terminated names
  kRemoveXattr,      // handle, name
  kForget,           // count: handles, payload: Handle[]; unknown ones are errors of the client
  // Descriptors that the caller of runsc handed in. Their handles are good for these calls and kForget only.
  kStdioAdd,       // one fd comes along; handle, attr; value := status flags (fcntl F_GETFL)
  kStdioSeek,      // handle, value: offset, flags: whence; value := new offset
  kStdioSync,      // handle, flags: 1 data only
  kStdioTruncate,  // handle, value: size
  kStdioGetAttr,   // handle; attr
  kOpCount,
};

enum LookUpFlags : uint32_t {
  kDonate = 1,  // regular files come with a descriptor that is open for reading
  kList = 2,    // directories come with their listing where it is short
};

enum ReaddirFlags : uint64_t {
  kAtEnd = 1,
  kExact = 2,  // a name that is in no part of the listing is not there: looking it up would answer ENOENT
};

enum SetAttrMask : uint32_t {
  kSetMode = 1,
  kSetUid = 2,
  kSetGid = 4,
  kSetSize = 8,
  kSetAtime = 16,
  kSetMtime = 32,
  kSetAtimeNow = 64,
  kSetMtimeNow = 128,
  kSetAll = 255,
};

struct Request {
  uint32_t length;  // of the whole message
  uint16_t op;
  uint16_t version;
  uint64_t sequence;  // echoed by the reply
  Handle handle;
  Handle handle2;
  uint64_t value;
  uint64_t value2;
  int64_t atime, mtime;  // nanoseconds
  uint32_t flags;
  uint32_t mask;
  uint32_t mode;
  uint32_t uid, gid;
  uint32_t count;
  uint32_t name_length;  // first payload
  uint32_t data_length;  // second payload
};
static_assert(sizeof(Request) == 96 && std::is_trivially_copyable_v<Request>);

// What statx(2) says. Times are nanoseconds since the epoch.
struct Attr {
  uint64_t ino;
  uint32_t dev_major, dev_minor;
  uint32_t rdev_major, rdev_minor;
  uint32_t mode, nlink;
  uint32_t uid, gid;
  uint64_t size, blocks;
  uint32_t blksize;
  uint32_t has_btime;
  uint64_t attributes;
  int64_t atime, mtime, ctime, btime;
};
static_assert(sizeof(Attr) == 104 && std::is_trivially_copyable_v<Attr>);

// The client's check of what a gofer says: a type that files have, a size that a file can have.
inline bool IsValidAttr(const Attr& a) {
  uint32_t type = a.mode & S_IFMT;
  bool known = type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK ||
               type == S_IFCHR || type == S_IFBLK;
  return known && a.size <= INT64_MAX && a.blksize <= (1u << 30);
}

struct Reply {
  uint32_t length;
  uint16_t op;
  uint16_t fd_count;
  uint64_t sequence;
  int32_t error;  // 0 or a positive errno
  uint32_t count;
  Handle handle;
  uint64_t value;
  Attr attr;
};
static_assert(sizeof(Reply) == 144 && std::is_trivially_copyable_v<Reply>);

// A walk's payload: `count` names, each a uint16_t length and its bytes, without padding. The reply's payload is
// `count` steps that exist, in order, then the last step's target if it is a symlink. `error` is ENOENT,
// ENOTDIR, ... when a component after these failed; a walk ends at anything that is not a directory.
struct WalkStep {
  Handle handle;
  Attr attr;
};
static_assert(sizeof(WalkStep) == 112);

// A lookup of several names of one directory. The request's payload is as a walk's. The reply's payload is `count`
// records, in the order of the names, each followed by `extra_length` bytes: the target, if the object is a symlink
// whose target the gofer read; or the whole listing, if it is a directory whose listing the gofer sends (kAtEnd in
// `listing`): DirEntry records as readdir has them. `count` may be less than was asked, but not 0. Descriptors travel
// in the order of `has_fd`. A file that cannot be opened comes without one.
struct Found {
  Handle handle;
  Attr attr;
  int32_t error;  // of this name alone; the other fields are then zero
  uint16_t extra_length;
  uint8_t has_fd;
  uint8_t listing;  // ReaddirFlags
};
static_assert(sizeof(Found) == 120);
inline constexpr size_t kMaxListed = 4096;  // bytes of a listing that comes with a lookup

// A readdir's record; the next one starts after `name_length` bytes, without padding.
struct DirEntry {
  uint64_t ino;
  int64_t next;                   // cookie of the position after this entry
  uint32_t dev_major, dev_minor;  // of the directory
  uint16_t name_length;
  uint8_t type;  // DT_*
  uint8_t reserved[5];
};
static_assert(sizeof(DirEntry) == 32);

struct StatFs {
  uint64_t type, block_size, blocks, blocks_free, blocks_available, files, files_free, fsid, name_length, flags;
};
static_assert(sizeof(StatFs) == 80);

}  // namespace moat::gofer

#endif  // MOAT_FS_HOSTFS_PROTOCOL_H_
