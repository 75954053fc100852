#include "platform/systrap/site_plan.h"

#include <algorithm>
#include <cstring>

#include "platform/systrap/decode.h"
#include "platform/systrap/layout.h"

namespace moat::systrap_platform {
namespace {

using Kind = CodePatcher::Kind;

constexpr uint64_t kFarJump = 7;  // jmp *disp32
constexpr uint64_t kShortJump = 2;
constexpr uint64_t kNumbered = 7;  // mov $imm32, %eax and the instruction
constexpr uint64_t kShortReach = 127;
constexpr uint64_t kPage = 4096;

CodePatch::Piece FarJump(GuestAddr at, uint32_t index) {
  const uint64_t table = SYSTRAP_TABLES + uint64_t{index} * TABLE_ENTRY;
  return {at,
          {0xff, 0x24, 0x25, static_cast<uint8_t>(table), static_cast<uint8_t>(table >> 8),
           static_cast<uint8_t>(table >> 16), static_cast<uint8_t>(table >> 24)}};
}
CodePatch::Piece ShortJump(GuestAddr at, GuestAddr to) {
  return {at, {0xeb, static_cast<uint8_t>(to - at - kShortJump)}};
}
// What is left of the padding stays padding, of whole instructions: the next site is found by decoding it.
CodePatch::Piece Filled(CodePatch::Piece piece, size_t length) {
  piece.bytes.resize(length, 0xcc);
  return piece;
}

// Two paddings, or one, by which a site reaches its thunk.
struct Route {
  const Padding *jump, *hop;
};
// `paddings`: in order, by their distance from the site's end.
std::optional<Route> FindRoute(std::span<const Padding> paddings) {
  for (const Padding& jump : paddings) {
    if (jump.length < kFarJump) continue;
    if (jump.offset <= kShortReach) return Route{&jump, nullptr};
    for (const Padding& hop : paddings) {
      if (hop.offset > kShortReach || hop.offset >= jump.offset) break;
      if (hop.length >= kShortJump && jump.offset - (hop.offset + kShortJump) <= kShortReach) return Route{&jump, &hop};
    }
  }
  return std::nullopt;
}

// What the guest takes away page by page takes the whole patch or nothing of it.
bool SamePage(GuestAddr start, GuestAddr end) { return start / kPage == (end - 1) / kPage; }
// Bytes from `at` on that are in the page of the byte before it.
size_t RestOfPage(GuestAddr at) { return kPage - 1 - (at - 1) % kPage; }

bool Overlap(GuestAddr a, uint64_t a_length, GuestAddr b, uint64_t b_length) {
  return a < b + b_length && b < a + a_length;
}

uint64_t EntryOf(const CallSite& site, uint32_t index) {
  const uint64_t thunk = SYSTRAP_THUNKS + uint64_t{index} * THUNK_SIZE;
  if (site.kind == Kind::kCpuid) return thunk + (site.numbered ? 0 : THUNK_CPUID_UNNUMBERED);
  return thunk + (site.numbered ? THUNK_NUMBERED : 0);
}

}  // namespace

CallSite CallSite::MovedBy(uint64_t bias) const {
  CallSite moved = *this;
  moved.start += bias;
  moved.behind += bias;
  moved.jump += bias;
  if (moved.hop != 0) moved.hop += bias;
  return moved;
}

bool CallSite::CollidesWith(const CallSite& o) const {
  return Overlap(jump, kFarJump, o.jump, kFarJump) || Overlap(jump, kFarJump, o.hop, kShortJump) ||
         Overlap(hop, kShortJump, o.jump, kFarJump) || (hop != 0 && hop == o.hop);
}

std::optional<SitePlan> SitePlan::Make(const CodeWindow& code, GuestAddr behind, Kind kind, uint32_t number,
                                       bool alone) {
  if (behind < code.start + kNumbered || behind >= code.start + code.bytes.size()) return std::nullopt;
  const size_t at = behind - code.start;
  const uint8_t second = kind == Kind::kCpuid ? 0xa2 : 0x05;
  if (code.bytes[at - 2] != 0x0f || code.bytes[at - 1] != second) return std::nullopt;
  std::vector<Padding> paddings;
  std::optional<Route> route;
  // Two bytes of the same eight change at once for whoever executes them.
  const GuestAddr instruction = behind - kSiteLength;
  if (SamePage(instruction, behind) && (alone || instruction % 8 != 7)) {
    paddings = FindPaddings(code.bytes.subspan(at, std::min(code.bytes.size() - at, RestOfPage(behind))), behind);
    route = FindRoute(paddings);
  }
  uint32_t immediate;
  memcpy(&immediate, &code.bytes[at - 6], sizeof immediate);
  const bool numbered = alone && code.bytes[at - kNumbered] == 0xb8 && (kind == Kind::kCpuid || immediate == number) &&
                        SamePage(behind - kNumbered, behind);
  SitePlan plan;
  plan.site = {behind - kNumbered, behind, true, kind, immediate, behind - kNumbered};
  // Padding is left to who has nothing else, unless there is plenty.
  if (!numbered || (route && route->hop == nullptr && route->jump->length >= 2 * kFarJump)) {
    if (!route) return std::nullopt;
    plan.site = {instruction, behind, false, kind, number, behind + route->jump->offset};
    plan.jump_room = route->jump->length;
    if (route->hop != nullptr) {
      plan.site.hop = behind + route->hop->offset;
      plan.hop_room = route->hop->length;
    }
  }
  return plan;
}

CodePatch SitePlan::ToPatch(uint32_t index) const {
  CodePatch patch;
  patch.site = index;
  CodePatch::Piece entry{SYSTRAP_TABLES + uint64_t{index} * TABLE_ENTRY, std::vector<uint8_t>(TABLE_ENTRY)};
  const uint64_t thunk = EntryOf(site, index), number = site.number;
  memcpy(entry.bytes.data(), &thunk, sizeof thunk);
  memcpy(entry.bytes.data() + TABLE_NUMBER, &number, sizeof number);
  patch.tables.push_back(std::move(entry));
  patch.return_slot = SYSTRAP_RETURNS + uint64_t{index} * 8;
  if (site.numbered) {
    patch.code = {FarJump(site.jump, index)};
    return patch;
  }
  patch.code = {Filled(FarJump(site.jump, index), jump_room)};
  if (site.hop != 0) patch.code.push_back(Filled(ShortJump(site.hop, site.jump), hop_room));
  patch.code.push_back(ShortJump(site.start, site.hop != 0 ? site.hop : site.jump));
  return patch;
}

}  // namespace moat::systrap_platform
