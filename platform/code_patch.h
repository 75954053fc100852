// Guest code rewritten so that hot instructions cost less: what a platform wants changed, for the sentry to write.
// A site is an instruction that was rewritten: a `syscall`, or a `cpuid`, which a hypervisor makes slow.
#ifndef MOAT_PLATFORM_CODE_PATCH_H_
#define MOAT_PLATFORM_CODE_PATCH_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

// Code around a site, as a platform wants to see it.
struct CodeWindow {
  // So much before and behind a site is of interest.
  static constexpr uint64_t kBefore = 16, kBehind = 320;
  GuestAddr start = 0;
  std::span<const uint8_t> bytes;
};

struct CodePatch {
  struct Piece {
    GuestAddr address;
    std::vector<uint8_t> bytes;
  };
  uint32_t site = 0;          // the platform's name for it
  std::vector<Piece> tables;  // in Platform::call_tables()
  GuestAddr return_slot = 0;  // there, too: 8 bytes, the address behind the instruction
  std::vector<Piece> code;    // within one page; to be written in this order, the last one in one store

  // What `code` overwrites, in the same order: `window` is what it was planned for.
  std::vector<Piece> OriginalsIn(const CodeWindow& window) const {
    std::vector<Piece> originals;
    for (const Piece& piece : code) {
      const auto bytes = window.bytes.subspan(piece.address - window.start, piece.bytes.size());
      originals.push_back({piece.address, {bytes.begin(), bytes.end()}});
    }
    return originals;
  }
};

// Sites of one file's code that are placed together. Immutable.
class PatchSet final : public RefCounted {
 public:
  // `owners`: what must live as long as a process may have the sites.
  PatchSet(std::vector<uint32_t> sites, std::vector<RefPtr<const RefCounted>> owners)
      : sites_(std::move(sites)), owners_(std::move(owners)) {
    for (uint32_t site : sites_) {
      if (site / 64 >= members_.size()) members_.resize(site / 64 + 1);
      members_[site / 64] |= uint64_t{1} << (site % 64);
    }
  }
  const std::vector<uint32_t>& sites() const { return sites_; }
  bool Has(uint32_t site) const { return site / 64 < members_.size() && (members_[site / 64] >> (site % 64) & 1) != 0; }

 private:
  const std::vector<uint32_t> sites_;
  const std::vector<RefPtr<const RefCounted>> owners_;
  std::vector<uint64_t> members_;
};

// Rewrites code of files, once for all processes that will map it. Addresses are offsets in the file. Thread-safe.
class CodePatcher {
 public:
  enum class Kind : uint8_t {
    kCall,  // `number`: the call that the site makes
    kCpuid
  };
  virtual ~CodePatcher() = default;
  // How to rewrite the instruction in front of `behind`, in bytes that no process has mapped yet. Those of the tables
  // are the same for all. nullopt: not at all. The site is taken until it is released.
  virtual std::optional<CodePatch> Plan(const CodeWindow& code, uint64_t behind, Kind kind, uint32_t number) = 0;
  // No process has the site any more.
  virtual void Release(uint32_t site) = 0;
  // Whether `cpuid` is so slow on this machine that to look for it pays.
  virtual bool WantsCpuids() = 0;
  // Offsets behind each `cpuid` in a function, `function.start` being its first byte. The bytes may be anything.
  virtual std::vector<uint64_t> FindCpuids(const CodeWindow& function) = 0;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_CODE_PATCH_H_
