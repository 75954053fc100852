// SharedSites: the sites in files' code, which every process that maps such a file has at the same numbers. Where in a
// space they lie: CallSites. Thread-safe. Lock: kLeaf.
#ifndef MOAT_PLATFORM_SYSTRAP_SHARED_SITES_H_
#define MOAT_PLATFORM_SYSTRAP_SHARED_SITES_H_

#include <array>

#include "platform/base/mutex.h"
#include "platform/systrap/abi.h"
#include "platform/systrap/site_plan.h"

namespace moat::systrap_platform {

class SharedSites final : public CodePatcher {
 public:
  std::optional<CodePatch> Plan(const CodeWindow& code, uint64_t behind, Kind kind, uint32_t number) override;
  void Release(uint32_t site) override;
  bool WantsCpuids() override;
  std::vector<uint64_t> FindCpuids(const CodeWindow& function) override;

  // One that is in a PatchSet, by offsets in its file.
  const CallSite& at(uint32_t site) const { return sites_[site]; }

 private:
  std::optional<uint32_t> Take(const CallSite& site);

  // An element is written before anybody knows of it, and again only when nobody does.
  std::array<CallSite, SYSTRAP_SHARED_SITES> sites_;
  Mutex mu_{LockRank::kLeaf};
  std::array<bool, SYSTRAP_SHARED_SITES> taken_ ABSL_GUARDED_BY(mu_) = {};
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_SHARED_SITES_H_
