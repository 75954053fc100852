// How a site can be rewritten to jump to its thunk. Two ways:
//   near      the 2 bytes of the instruction become a short jump to padding behind a function's end, where 7 bytes jump
//             on; where those are too far away, another short jump in padding on the way leads to them;
//   numbered  `mov $immediate, %eax` and the instruction become the 7 bytes; a jump to the instruction itself then
//   meets
//             a breakpoint.
#ifndef MOAT_PLATFORM_SYSTRAP_SITE_PLAN_H_
#define MOAT_PLATFORM_SYSTRAP_SITE_PLAN_H_

#include <optional>

#include "platform/code_patch.h"

namespace moat::systrap_platform {

// `syscall` and `cpuid`.
inline constexpr uint64_t kSiteLength = 2;

struct CallSite {
  GuestAddr start;   // first overwritten byte
  GuestAddr behind;  // the address behind its instruction
  bool numbered;
  CodePatcher::Kind kind = CodePatcher::Kind::kCall;
  uint32_t number = 0;  // what a numbered one loads
  GuestAddr jump;       // the 7 bytes that go on to the thunk
  GuestAddr hop = 0;    // the short jump on the way there, if there is one
  bool gone = false;    // the guest has written or mapped something else there

  // Where a thread is that has made or is to make just the instruction.
  GuestAddr at() const { return behind - kSiteLength; }
  CallSite MovedBy(uint64_t bias) const;
  // Whether both have taken the same padding.
  bool CollidesWith(const CallSite& other) const;
};

struct SitePlan {
  CallSite site;
  size_t jump_room = 0, hop_room = 0;  // bytes of padding there

  // nullopt when it cannot be done safely. `alone`: nobody can be executing the bytes that change.
  static std::optional<SitePlan> Make(const CodeWindow& code, GuestAddr behind, CodePatcher::Kind kind, uint32_t number,
                                      bool alone);
  // As site `index`.
  CodePatch ToPatch(uint32_t index) const;
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_SITE_PLAN_H_
