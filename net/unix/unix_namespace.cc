#include "net/unix/unix_namespace.h"

#include <fmt/format.h>

#include "net/unix/unix_socket.h"

namespace moat {

Result<void> UnixNamespace::Claim(std::string_view name, UnixSocket& socket) {
  MutexLock lock(mu_);
  if (!names_.try_emplace(std::string(name), &socket).second) return kEADDRINUSE;
  return {};
}

Result<std::string> UnixNamespace::ClaimAny(UnixSocket& socket) {
  constexpr uint32_t kNames = 1 << 20;
  MutexLock lock(mu_);
  for (uint32_t i = 0; i < kNames; ++i) {
    std::string name = fmt::format("{:05x}", next_auto_++ % kNames);
    if (names_.try_emplace(name, &socket).second) return name;
  }
  return kEADDRINUSE;
}

void UnixNamespace::Release(std::string_view name) {
  MutexLock lock(mu_);
  names_.erase(std::string(name));
}

RefPtr<UnixSocket> UnixNamespace::Find(std::string_view name) const {
  MutexLock lock(mu_);
  auto at = names_.find(std::string(name));
  if (at == names_.end() || !at->second->TryAddRef()) return nullptr;
  return AdoptRef(at->second);
}

void UnixNamespace::Add(UnixSocket& socket) {
  MutexLock lock(mu_);
  sockets_.insert(&socket);
}

void UnixNamespace::Remove(UnixSocket& socket) {
  MutexLock lock(mu_);
  sockets_.erase(&socket);
}

std::vector<RefPtr<UnixSocket>> UnixNamespace::Sockets() const {
  std::vector<RefPtr<UnixSocket>> all;
  MutexLock lock(mu_);
  for (UnixSocket* s : sockets_) {
    if (s->TryAddRef()) all.push_back(AdoptRef(s));
  }
  return all;
}

}  // namespace moat
