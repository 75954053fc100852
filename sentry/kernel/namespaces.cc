#include "sentry/kernel/namespaces.h"

#include <atomic>

namespace moat {

uint64_t NextNamespaceId() {
  // The numbers that Linux gives to its first namespaces begin at PROC_DYNAMIC_FIRST.
  static std::atomic<uint64_t> next{0xF0000000u};
  return next.fetch_add(1, std::memory_order_relaxed);
}

RefPtr<UtsNamespace> UtsNamespace::Clone(RefPtr<UserNamespace> owner) const {
  MutexLock lock(mu_);
  return MakeRef<UtsNamespace>(std::move(owner), hostname_, domainname_);
}

std::string UtsNamespace::hostname() const {
  MutexLock lock(mu_);
  return hostname_;
}

std::string UtsNamespace::domainname() const {
  MutexLock lock(mu_);
  return domainname_;
}

void UtsNamespace::set_hostname(std::string_view name) {
  MutexLock lock(mu_);
  hostname_ = name;
}

void UtsNamespace::set_domainname(std::string_view name) {
  MutexLock lock(mu_);
  domainname_ = name;
}

}  // namespace moat
