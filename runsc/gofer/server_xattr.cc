// Extended attributes, through /proc/self/fd: O_PATH descriptors have no xattr calls of their own.
#include <sys/xattr.h>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

Result<std::string> CheckedXattrName(std::string_view name) {
  if (name.empty() || name.size() > kMaxXattrName) return kERANGE;
  if (name.find('\0') != name.npos) return kEINVAL;
  return std::string(name);
}

}  // namespace

Result<void> Server::GetXattr(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  std::string name = TRY(CheckedXattrName(in.name));
  ssize_t n = getxattr(FdName(node->fd()).c_str(), name.c_str(), out.payload.data(), kMaxXattrValue);
  if (n < 0) return HostErrno();
  out.payload_size = n;
  return {};
}

Result<void> Server::SetXattr(const Incoming& in, Outgoing&) {
  RefPtr<Node> node = TRY(WritableNode(in.request.handle));
  std::string name = TRY(CheckedXattrName(in.name));
  if (in.data.size() > kMaxXattrValue) return kE2BIG;
  if ((in.request.flags & ~uint32_t{XATTR_CREATE | XATTR_REPLACE}) != 0) return kEINVAL;
  if (setxattr(FdName(node->fd()).c_str(), name.c_str(), in.data.data(), in.data.size(),
               static_cast<int>(in.request.flags)) != 0) {
    return HostErrno();
  }
  return {};
}

Result<void> Server::ListXattr(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  ssize_t n = listxattr(FdName(node->fd()).c_str(), reinterpret_cast<char*>(out.payload.data()), kMaxXattrValue);
  if (n < 0) return HostErrno();
  out.payload_size = n;
  return {};
}

Result<void> Server::RemoveXattr(const Incoming& in, Outgoing&) {
  RefPtr<Node> node = TRY(WritableNode(in.request.handle));
  std::string name = TRY(CheckedXattrName(in.name));
  if (removexattr(FdName(node->fd()).c_str(), name.c_str()) != 0) return HostErrno();
  return {};
}

}  // namespace moat::gofer
