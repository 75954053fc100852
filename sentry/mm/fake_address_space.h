// FakeAddressSpace: an AddressSpace without a stub, for tests. Keeps what the sentry ordered page by page and performs
// guest loads and stores by hand: a store to a page that is not mapped writable is a fault, as on the real one.
#ifndef MOAT_SENTRY_MM_FAKE_ADDRESS_SPACE_H_
#define MOAT_SENTRY_MM_FAKE_ADDRESS_SPACE_H_

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <optional>

#include "platform/base/log.h"
#include "platform/platform.h"

namespace moat {

class FakeAddressSpace final : public AddressSpace {
 public:
  struct Page {
    int fd;
    uint64_t offset;
    int prot;
    bool shared;
  };

  void Map(GuestAddr addr, uint64_t length, int prot, bool shared, int fd, uint64_t offset) override {
    std::lock_guard lock(mu_);
    MOAT_CHECK(length != 0 && addr % kPageSize == 0 && length % kPageSize == 0 && offset % kPageSize == 0);
    MOAT_CHECK(shared || (prot & PROT_WRITE) == 0);
    ++operations_;
    for (uint64_t at = 0; at < length; at += kPageSize) pages_[addr + at] = Page{fd, offset + at, prot, shared};
  }
  void Unmap(GuestAddr addr, uint64_t length) override {
    std::lock_guard lock(mu_);
    ++operations_;
    pages_.erase(pages_.lower_bound(addr), pages_.lower_bound(addr + length));
  }
  void Protect(GuestAddr addr, uint64_t length, int prot) override {
    std::lock_guard lock(mu_);
    ++operations_;
    for (uint64_t at = addr; at < addr + length; at += kPageSize) {
      auto it = pages_.find(at);
      MOAT_CHECK(it != pages_.end());  // the host's mprotect would answer ENOMEM
      it->second.prot = prot;
    }
  }
  Result<void> Flush(Context*) override { return {}; }
  void Clear() override {
    std::lock_guard lock(mu_);
    pages_.clear();
  }

  std::optional<Page> Find(GuestAddr addr) {
    std::lock_guard lock(mu_);
    auto it = pages_.find(PageFloor(addr));
    if (it == pages_.end()) return std::nullopt;
    return it->second;
  }
  // Host operations that were ordered so far.
  int operations() const { return operations_; }

  // One guest access of a byte. Returns the fault instead of performing it when the mapping does not allow it.
  std::optional<FaultEvent> Access(GuestAddr addr, bool write, uint8_t* value) {
    std::optional<Page> page = Find(addr);
    const int need = write ? PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC;
    if (!page || (page->prot & need) == 0)
      return FaultEvent{SIGSEGV, page ? SEGV_ACCERR : SEGV_MAPERR, addr, 14, (write ? 2u : 0u) | 4u};
    const off_t at = static_cast<off_t>(page->offset + addr % kPageSize);
    if (write ? Store(*page, at, *value) : pread(page->fd, value, 1, at) == 1) return std::nullopt;
    // The rest of a file's last page reads as zeros.
    uint8_t first;
    if (!write && pread(page->fd, &first, 1, static_cast<off_t>(page->offset)) == 1) {
      *value = 0;
      return std::nullopt;
    }
    return FaultEvent{SIGBUS, BUS_ADRERR, addr, 14, 0};
  }

 private:
  // By a mapping, as a guest does: the host gives a file's pages to write(2) in other sizes.
  static bool Store(const Page& page, off_t at, uint8_t value) {
    struct stat st;
    if (fstat(page.fd, &st) != 0 || st.st_size <= at) return false;
    void* p = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, page.fd, static_cast<off_t>(page.offset));
    if (p == MAP_FAILED) return false;
    *(static_cast<volatile uint8_t*>(p) + at % static_cast<off_t>(kPageSize)) = value;
    munmap(p, kPageSize);
    return true;
  }

  std::mutex mu_;
  std::map<GuestAddr, Page> pages_;
  int operations_ = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_FAKE_ADDRESS_SPACE_H_
