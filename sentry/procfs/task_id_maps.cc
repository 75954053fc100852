// /proc/<pid>/{uid_map,gid_map,setgroups}. Source: user_namespaces(7).
#include <fmt/format.h>

#include <charconv>

#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

constexpr size_t kMaxEntries = 340;

enum class IdKind { kUser, kGroup };

std::string Show(const VfsContext& ctx, Task& task, IdKind kind) {
  RefPtr<const Credentials> cred = task.credentials();
  const UserNamespace& ns = *cred->user_ns;
  const UserNamespace* viewer = ctx.cred.user_ns.get();
  if (viewer == &ns && ns.parent() != nullptr) viewer = ns.parent();
  std::string s;
  for (const IdMapEntry& e : kind == IdKind::kUser ? ns.UidMap() : ns.GidMap()) {
    uint32_t outside = e.outside;
    if (ns.parent() != nullptr && viewer != ns.parent()) {
      uint32_t id = kind == IdKind::kUser ? ns.parent()->ToKuid(e.outside) : ns.parent()->ToKgid(e.outside);
      outside = id == kNoId ? kNoId : kind == IdKind::kUser ? viewer->FromKuid(id) : viewer->FromKgid(id);
    }
    s += fmt::format("{:>10} {:>10} {:>10}\n", e.inside, outside, e.count);
  }
  return s;
}

Result<std::vector<IdMapEntry>> Parse(std::string_view text) {
  std::vector<IdMapEntry> map;
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    uint32_t values[3];
    for (uint32_t& v : values) {
      while (!line.empty() && (line[0] == ' ' || line[0] == '\t')) line.remove_prefix(1);
      auto [at, ec] = std::from_chars(line.data(), line.data() + line.size(), v);
      if (ec != std::errc()) return kEINVAL;
      line.remove_prefix(static_cast<size_t>(at - line.data()));
      if (!line.empty() && line[0] != ' ' && line[0] != '\t') return kEINVAL;
    }
    while (!line.empty() && (line[0] == ' ' || line[0] == '\t')) line.remove_prefix(1);
    if (!line.empty()) return kEINVAL;
    auto [inside, outside, count] = values;
    if (inside == kNoId || outside == kNoId || count == 0) return kEINVAL;
    if (inside + count - 1 < inside || outside + count - 1 < outside) return kEINVAL;
    if (map.size() == kMaxEntries) return kEINVAL;
    for (const IdMapEntry& e : map) {
      auto overlaps = [](uint64_t a, uint64_t b, uint64_t na, uint64_t nb) { return a < b + nb && b < a + na; };
      if (overlaps(e.inside, inside, e.count, count) || overlaps(e.outside, outside, e.count, count)) return kEINVAL;
    }
    map.push_back({inside, outside, count});
  }
  if (map.empty()) return kEINVAL;
  return map;
}

Result<void> MayMap(const VfsContext& ctx, UserNamespace& ns, const std::vector<IdMapEntry>& map, IdKind kind) {
  UserNamespace* parent = ns.parent();
  if (parent == nullptr) return kEPERM;
  const UserNamespace* own = ctx.cred.user_ns.get();
  if (own != &ns && own != parent) return kEPERM;
  const int cap = kind == IdKind::kUser ? CAP_SETUID : CAP_SETGID;
  if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, ns)) return kEPERM;
  // One id, the writer's own, needs no privilege in the parent.
  if (map.size() == 1 && map[0].count == 1 && ctx.cred.euid == ns.owner()) {
    if (kind == IdKind::kUser && parent->ToKuid(map[0].outside) == ctx.cred.fsuid) return {};
    if (kind == IdKind::kGroup && ns.setgroups_denied() && parent->ToKgid(map[0].outside) == ctx.cred.fsgid) return {};
  }
  if (!ctx.cred.HasCapabilityIn(cap, *parent)) return kEPERM;
  return {};
}

Result<size_t> Store(Task& task, const VfsContext& ctx, std::string_view text, int64_t offset, IdKind kind) {
  if (offset != 0) return kEINVAL;  // one write, whole
  RefPtr<const Credentials> cred = task.credentials();
  std::vector<IdMapEntry> map = TRY(Parse(text));
  TRY(MayMap(ctx, *cred->user_ns, map, kind));
  if (kind == IdKind::kUser) {
    TRY(cred->user_ns->SetUidMap(std::move(map)));
  } else {
    TRY(cred->user_ns->SetGidMap(std::move(map)));
  }
  return text.size();
}

}  // namespace

Result<std::string> UidMap(ProcFs&, Task& task, const VfsContext& ctx) { return Show(ctx, task, IdKind::kUser); }
Result<std::string> GidMap(ProcFs&, Task& task, const VfsContext& ctx) { return Show(ctx, task, IdKind::kGroup); }

Result<size_t> SetUidMap(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset) {
  return Store(task, ctx, text, offset, IdKind::kUser);
}
Result<size_t> SetGidMap(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset) {
  return Store(task, ctx, text, offset, IdKind::kGroup);
}

Result<std::string> Setgroups(ProcFs&, Task& task, const VfsContext&) {
  return std::string(task.credentials()->user_ns->setgroups_denied() ? "deny\n" : "allow\n");
}

Result<size_t> SetSetgroups(ProcFs&, Task& task, const VfsContext& ctx, std::string_view text, int64_t offset) {
  if (offset != 0) return kEINVAL;
  RefPtr<const Credentials> cred = task.credentials();
  if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, *cred->user_ns)) return kEPERM;
  std::string_view word = text;
  while (!word.empty() && (word.back() == '\n' || word.back() == ' ' || word.back() == '\0')) word.remove_suffix(1);
  if (word == "deny") {
    TRY(cred->user_ns->DenySetgroups());
  } else if (word == "allow") {
    if (cred->user_ns->setgroups_denied()) return kEPERM;
  } else {
    return kEINVAL;
  }
  return text.size();
}

}  // namespace moat::proc
