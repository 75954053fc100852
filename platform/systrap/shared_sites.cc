#include "platform/systrap/shared_sites.h"

#include <cstring>

#include "platform/systrap/cpuid_table.h"
#include "platform/systrap/decode.h"

namespace moat::systrap_platform {
namespace {

CodePatch::Piece CpuidTablePiece() {
  const CpuidTable& table = SharedCpuidTable();
  CodePatch::Piece piece{SYSTRAP_CPUID, std::vector<uint8_t>(sizeof table)};
  memcpy(piece.bytes.data(), &table, sizeof table);
  return piece;
}

}  // namespace

std::optional<CodePatch> SharedSites::Plan(const CodeWindow& code, uint64_t behind, Kind kind, uint32_t number) {
  const std::optional<SitePlan> plan = SitePlan::Make(code, behind, kind, number, /*alone=*/true);
  if (!plan) return std::nullopt;
  if (kind == Kind::kCpuid && plan->site.numbered && !IsCpuidLeafShared(plan->site.number)) return std::nullopt;
  const std::optional<uint32_t> index = Take(plan->site);
  if (!index) return std::nullopt;
  CodePatch patch = plan->ToPatch(*index);
  if (kind == Kind::kCpuid) patch.tables.push_back(CpuidTablePiece());
  return patch;
}

std::optional<uint32_t> SharedSites::Take(const CallSite& site) {
  const bool cpuid = site.kind == Kind::kCpuid;
  const uint32_t first = cpuid ? 0 : SYSTRAP_CPUID_SITES;
  const uint32_t end = cpuid ? SYSTRAP_CPUID_SITES : SYSTRAP_SHARED_SITES;
  MutexLock lock(mu_);
  for (uint32_t index = first; index < end; ++index) {
    if (taken_[index]) continue;
    taken_[index] = true;
    sites_[index] = site;
    return index;
  }
  return std::nullopt;
}

void SharedSites::Release(uint32_t site) {
  MutexLock lock(mu_);
  taken_[site] = false;
}

bool SharedSites::WantsCpuids() { return IsCpuidSlow(); }

std::vector<uint64_t> SharedSites::FindCpuids(const CodeWindow& function) {
  return systrap_platform::FindCpuids(function.bytes, function.start);
}

}  // namespace moat::systrap_platform
