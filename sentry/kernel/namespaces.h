// UTS, IPC, network and cgroup namespaces as tasks hold them. (User namespaces: platform/cred; mount: fs/vfs; pid:
// pid_namespace.h.) Thread-safe. Source: namespaces(7), uts_namespaces(7), ipc_namespaces(7).
#ifndef MOAT_SENTRY_KERNEL_NAMESPACES_H_
#define MOAT_SENTRY_KERNEL_NAMESPACES_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/cred/user_namespace.h"

namespace moat {

// A number for a new namespace, as /proc/<pid>/ns links show it ("uts:[4026531838]").
uint64_t NextNamespaceId();

class Namespace : public RefCounted {
 public:
  explicit Namespace(RefPtr<UserNamespace> owner) : owner_(std::move(owner)), id_(NextNamespaceId()) {}
  UserNamespace& owner() const { return *owner_; }
  uint64_t id() const { return id_; }

 private:
  const RefPtr<UserNamespace> owner_;
  const uint64_t id_;
};

class UtsNamespace final : public Namespace {
 public:
  UtsNamespace(RefPtr<UserNamespace> owner, std::string hostname, std::string domainname = "(none)")
      : Namespace(std::move(owner)), hostname_(std::move(hostname)), domainname_(std::move(domainname)) {}
  RefPtr<UtsNamespace> Clone(RefPtr<UserNamespace> owner) const;
  std::string hostname() const;
  std::string domainname() const;
  // At most 64 bytes; the caller checked.
  void set_hostname(std::string_view name);
  void set_domainname(std::string_view name);

 private:
  mutable Mutex mu_{LockRank::kLeaf};
  std::string hostname_ ABSL_GUARDED_BY(mu_);
  std::string domainname_ ABSL_GUARDED_BY(mu_);
};

// A namespace whose contents belong to another folder (sentry/ipc, sentry/socket): it fills the slots on first use.
template <size_t kSlots>
class SlottedNamespace : public Namespace {
 public:
  using Namespace::Namespace;
  RefPtr<RefCounted> slot(size_t i) const {
    MutexLock lock(mu_);
    return slots_[i];
  }
  // Stores `object` unless the slot is taken; returns what the slot then holds.
  RefPtr<RefCounted> AttachOnce(size_t i, RefPtr<RefCounted> object) {
    MutexLock lock(mu_);
    if (!slots_[i]) slots_[i] = std::move(object);
    return slots_[i];
  }

 private:
  mutable Mutex mu_{LockRank::kLeaf};
  std::array<RefPtr<RefCounted>, kSlots> slots_ ABSL_GUARDED_BY(mu_);
};

class IpcNamespace final : public SlottedNamespace<4> {
 public:
  enum Slot : size_t { kShm, kSem, kMsg, kMqueue };
  using SlottedNamespace::SlottedNamespace;
};

class NetNamespace final : public SlottedNamespace<4> {
 public:
  enum Slot : size_t { kStack, kUnix, kNetlink, kOther };
  using SlottedNamespace::SlottedNamespace;
};

class CgroupNamespace final : public SlottedNamespace<1> {
 public:
  enum Slot : size_t { kRoot };
  using SlottedNamespace::SlottedNamespace;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_NAMESPACES_H_
