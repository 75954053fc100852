// For tests: a patcher that takes any `cpuid` or `syscall` for worth rewriting and makes two bytes of it, without a
// decoder; and an object whose bytes cannot change.
#ifndef MOAT_SENTRY_CODE_FAKE_PATCHER_H_
#define MOAT_SENTRY_CODE_FAKE_PATCHER_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <string_view>

#include "platform/base/scoped_fd.h"
#include "platform/code_patch.h"
#include "platform/memory/mappable.h"

namespace moat {

class FakePatcher final : public CodePatcher {
 public:
  static constexpr GuestAddr kTables = 0x7fcb0000;
  static constexpr uint64_t kShared = 8192, kLength = 16384;
  static constexpr uint8_t kRewritten[] = {0xeb, 0xfe};

  std::optional<CodePatch> Plan(const CodeWindow& code, uint64_t behind, Kind kind, uint32_t number) override {
    const size_t at = behind - code.start;
    if (at < 2 || at > code.bytes.size() || code.bytes[at - 2] != 0x0f) return std::nullopt;
    uint32_t site = 1;
    while (taken.contains(site)) ++site;
    taken.insert(site);
    CodePatch patch;
    patch.site = site;
    patch.tables = {{kTables + site * 8, {static_cast<uint8_t>(site), 0, 0, 0, 0, 0, 0, 0}}};
    patch.return_slot = kTables + kShared + site * 8;
    patch.code = {{behind - 2, {kRewritten[0], kRewritten[1]}}};
    return patch;
  }
  void Release(uint32_t site) override { taken.erase(site); }
  bool WantsCpuids() override { return true; }
  std::vector<uint64_t> FindCpuids(const CodeWindow& function) override {
    std::vector<uint64_t> found;
    for (size_t i = 0; i + 1 < function.bytes.size(); ++i) {
      if (function.bytes[i] == 0x0f && function.bytes[i + 1] == 0xa2) found.push_back(function.start + i + 2);
    }
    return found;
  }
  std::set<uint32_t> taken;
};

class ConstantObject final : public Mappable {
 public:
  explicit ConstantObject(std::string_view content)
      : size_(content.size()), fd_(memfd_create("constant", MFD_CLOEXEC)) {
    if (pwrite(fd_.get(), content.data(), content.size(), 0) != static_cast<ssize_t>(content.size())) size_ = 0;
  }
  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool) override {
    if (offset >= PageCeil(size_)) return kENXIO;
    HostPages pages;
    pages.fd = fd_.get();
    pages.range = {offset, offset + std::min(length, PageCeil(size_) - offset)};
    return pages;
  }
  Result<void> AddMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override { return {}; }
  void RemoveMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override {}
  RefPtr<RefCounted> Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) override {
    if (may_change) return nullptr;
    if (!derived) derived = make();
    return derived;
  }
  Identity identity() const override { return {}; }
  Result<void> Sync(uint64_t, uint64_t) override { return {}; }

  // The bytes of a liar.
  void Poke(uint64_t offset, char byte) { (void)!pwrite(fd_.get(), &byte, 1, static_cast<off_t>(offset)); }

  bool may_change = false;
  RefPtr<RefCounted> derived;

 private:
  uint64_t size_;
  const ScopedFd fd_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_FAKE_PATCHER_H_
