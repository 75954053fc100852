#include <sys/mount.h>

#include <algorithm>

#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// kNothing: nobody could see an effect, as the sandbox's file systems are in memory or the host's. kIgnored: somebody
// could, and is told that there is none.
enum class Effect { kSet, kClear, kPropagation, kBind, kRemount, kNothing, kIgnored, kRefused };

constexpr uint64_t kNoSymFollow = 256;  // MS_NOSYMFOLLOW
struct OptionRow {
  std::string_view name;
  Effect effect;
  uint64_t flag;
};

constexpr OptionRow kOptions[] = {
    {"ro", Effect::kSet, MS_RDONLY},
    {"rro", Effect::kSet, MS_RDONLY},
    {"rw", Effect::kClear, MS_RDONLY},
    {"rrw", Effect::kClear, MS_RDONLY},
    {"nosuid", Effect::kSet, MS_NOSUID},
    {"rnosuid", Effect::kSet, MS_NOSUID},
    {"suid", Effect::kClear, MS_NOSUID},
    {"rsuid", Effect::kClear, MS_NOSUID},
    {"nodev", Effect::kSet, MS_NODEV},
    {"rnodev", Effect::kSet, MS_NODEV},
    {"dev", Effect::kClear, MS_NODEV},
    {"rdev", Effect::kClear, MS_NODEV},
    {"noexec", Effect::kSet, MS_NOEXEC},
    {"rnoexec", Effect::kSet, MS_NOEXEC},
    {"exec", Effect::kClear, MS_NOEXEC},
    {"rexec", Effect::kClear, MS_NOEXEC},
    {"noatime", Effect::kSet, MS_NOATIME},
    {"rnoatime", Effect::kSet, MS_NOATIME},
    {"atime", Effect::kClear, MS_NOATIME},
    {"ratime", Effect::kClear, MS_NOATIME},
    {"nodiratime", Effect::kSet, MS_NODIRATIME},
    {"rnodiratime", Effect::kSet, MS_NODIRATIME},
    {"diratime", Effect::kClear, MS_NODIRATIME},
    {"rdiratime", Effect::kClear, MS_NODIRATIME},
    {"relatime", Effect::kSet, MS_RELATIME},
    {"rrelatime", Effect::kSet, MS_RELATIME},
    {"norelatime", Effect::kClear, MS_RELATIME},
    {"rnorelatime", Effect::kClear, MS_RELATIME},
    {"strictatime", Effect::kSet, MS_STRICTATIME},
    {"rstrictatime", Effect::kSet, MS_STRICTATIME},
    {"nostrictatime", Effect::kClear, MS_STRICTATIME},
    {"rnostrictatime", Effect::kClear, MS_STRICTATIME},
    {"sync", Effect::kSet, MS_SYNCHRONOUS},
    {"async", Effect::kClear, MS_SYNCHRONOUS},
    {"dirsync", Effect::kSet, MS_DIRSYNC},
    {"lazytime", Effect::kNothing, 0},
    {"nolazytime", Effect::kNothing, 0},
    {"defaults", Effect::kClear, 0},
    {"bind", Effect::kBind, 0},
    {"rbind", Effect::kBind, MS_REC},
    {"private", Effect::kPropagation, MS_PRIVATE},
    {"rprivate", Effect::kPropagation, MS_PRIVATE | MS_REC},
    {"shared", Effect::kPropagation, MS_SHARED},
    {"rshared", Effect::kPropagation, MS_SHARED | MS_REC},
    {"slave", Effect::kPropagation, MS_SLAVE},
    {"rslave", Effect::kPropagation, MS_SLAVE | MS_REC},
    {"unbindable", Effect::kPropagation, MS_UNBINDABLE},
    {"runbindable", Effect::kPropagation, MS_UNBINDABLE | MS_REC},
    {"iversion", Effect::kNothing, 0},
    {"noiversion", Effect::kNothing, 0},
    {"silent", Effect::kNothing, 0},
    {"loud", Effect::kNothing, 0},
    {"mand", Effect::kIgnored, 0},
    {"nomand", Effect::kNothing, 0},
    {"nosymfollow", Effect::kSet, kNoSymFollow},
    {"rnosymfollow", Effect::kSet, kNoSymFollow},
    {"symfollow", Effect::kClear, kNoSymFollow},
    {"rsymfollow", Effect::kClear, kNoSymFollow},
    {"remount", Effect::kRemount, 0},
    {"tmpcopyup", Effect::kIgnored, 0},
    {"idmap", Effect::kRefused, 0},
    {"ridmap", Effect::kRefused, 0},
};

}  // namespace

std::vector<std::string> SupportedMountOptions() {
  std::vector<std::string> names;
  for (const OptionRow& o : kOptions) {
    if (o.effect != Effect::kIgnored && o.effect != Effect::kRefused) names.emplace_back(o.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<MountOptions> ParseMountOptions(const std::vector<std::string>& options) {
  MountOptions out;
  for (const std::string& option : options) {
    const OptionRow* row = nullptr;
    for (const OptionRow& o : kOptions) {
      if (o.name == option) row = &o;
    }
    if (row == nullptr) {
      out.data += (out.data.empty() ? "" : ",") + option;
      continue;
    }
    switch (row->effect) {
      case Effect::kSet:
        out.flags |= row->flag;
        break;
      case Effect::kClear:
        out.flags &= ~row->flag;
        break;
      case Effect::kPropagation:
        out.propagation = row->flag;
        break;
      case Effect::kBind:
        out.bind = true;
        out.recursive = row->flag != 0;
        break;
      case Effect::kRemount:
        out.remount = true;
        break;
      case Effect::kNothing:
        break;
      case Effect::kIgnored:
        out.ignored.push_back(option);
        break;
      case Effect::kRefused:
        return Invalid("option {} is not implemented", option);
    }
  }
  return out;
}

}  // namespace moat
