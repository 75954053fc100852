#include "fs/hostfs/directory_scan.h"

#include <dirent.h>

#include <algorithm>
#include <numeric>

namespace moat {
namespace {

constexpr uint32_t kNear = 16;       // entries behind the last one that are compared before the index is asked
constexpr uint32_t kMaxGap = 8;      // entries of one kind that a caller in order may leave out
constexpr uint32_t kMaxLook = 4096;  // entries that are passed in search of the next ones

bool IsDots(std::string_view name) { return name == "." || name == ".."; }

}  // namespace

DirectoryScan::~DirectoryScan() { (void)Drop(); }

bool DirectoryScan::IsDir(uint32_t entry) const { return At(entry).type == DT_DIR; }

void DirectoryScan::BuildIndex() {
  by_name_.resize(listing_->size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(), [this](uint32_t a, uint32_t b) { return At(a).name < At(b).name; });
}

uint32_t DirectoryScan::PlaceOf(bool by_name, uint32_t entry) const {
  if (!by_name) return entry;
  auto it = std::lower_bound(by_name_.begin(), by_name_.end(), std::string_view(At(entry).name),
                             [this](uint32_t a, std::string_view n) { return At(a).name < n; });
  return static_cast<uint32_t>(it - by_name_.begin());
}

uint32_t DirectoryScan::Find(std::string_view name) {
  uint32_t n = static_cast<uint32_t>(listing_->size());
  uint32_t start = last_ == kNone ? 0 : last_ + 1;
  uint32_t limit = by_name_.empty() ? n : std::min(n, kNear);
  uint32_t i = 0, at = kNone;
  for (; i < limit; ++i) {
    uint32_t entry = start + i < n ? start + i : start + i - n;
    if (At(entry).name != name) continue;
    at = entry;
    break;
  }
  if (by_name_.empty()) {
    // An index costs about as much as a few searches without.
    compared_ += i;
    if (compared_ > 4 * size_t{n} + kNear) BuildIndex();
  } else if (at == kNone) {
    auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                               [this](uint32_t a, std::string_view b) { return At(a).name < b; });
    if (it != by_name_.end() && At(*it).name == name) at = *it;
  }
  return at;
}

bool DirectoryScan::IsMissing(std::string_view name) {
  return exact_ && !changed_.contains(name) && Find(name) == kNone;
}

DirectoryScan::Step DirectoryScan::Next(std::string_view name,
                                        absl::FunctionRef<bool(const GoferClient::Entry&)> known) {
  Step step;
  if (changed_.contains(name)) return step;
  uint32_t entry = Find(name);
  if (entry == kNone) {
    step.missing = exact_;
    return step;
  }
  NoteOrder(entry);
  step.directory = IsDir(entry);
  step.answer = Take(entry);
  if (!step.answer) step.ahead = Plan(entry, known);
  last_ = entry;
  return step;
}

void DirectoryScan::NoteOrder(uint32_t entry) {
  uint32_t from = last_ == kNone ? 0 : last_ + 1;
  if (entry < from || entry - from > kMaxGap) return;
  if (!IsDir(entry)) {
    policy_.plain.Seen();
    policy_.plain.Used();
    return;
  }
  for (uint32_t between = from; between < entry; ++between) {
    if (!IsDir(between)) return policy_.plain.Seen();
  }
}

bool DirectoryScan::Follows(bool by_name, uint32_t entry, bool& passed) const {
  uint32_t from = last_ == kNone ? 0 : PlaceOf(by_name, last_) + 1;
  uint32_t to = PlaceOf(by_name, entry);
  if (to < from || to - from > kMaxLook) return false;
  passed = false;
  uint32_t gap = 0;
  for (uint32_t place = from; place < to; ++place) {
    uint32_t between = EntryAt(by_name, place);
    if (IsDots(At(between).name)) continue;
    if (IsDir(between) != IsDir(entry)) {
      passed = true;
    } else if (++gap > kMaxGap) {
      return false;
    }
  }
  return true;
}

std::vector<uint32_t> DirectoryScan::Plan(uint32_t entry, absl::FunctionRef<bool(const GoferClient::Entry&)> known) {
  bool by_name = false, passed;
  if (!Follows(false, entry, passed)) {
    // A first lookup in the middle of the listing is no sign of an order.
    by_name = last_ != kNone && !by_name_.empty() && Follows(true, entry, passed);
    if (!by_name) {
      window_ = 0;
      return {};
    }
  }
  if (passed) {
    same_kind_ = true;
  } else if (last_ == kNone) {
    same_kind_ = IsDir(entry) && !policy_.plain.MostlyUsed();
  } else if (IsDir(last_) != IsDir(entry)) {
    same_kind_ = false;
  }
  window_ = window_ == 0 ? policy_.first_window() : std::min(2 * window_, ReadAheadPolicy::kMaxWindow);
  std::vector<uint32_t> ahead;
  uint32_t place = PlaceOf(by_name, entry) + 1;
  uint32_t end = static_cast<uint32_t>(std::min<size_t>(listing_->size(), size_t{place} + kMaxLook));
  for (; place < end && ahead.size() + 1 < window_; ++place) {
    uint32_t next = EntryAt(by_name, place);
    const GoferClient::Entry& e = At(next);
    if ((same_kind_ && IsDir(next) != IsDir(entry)) || IsDots(e.name) || changed_.contains(e.name) ||
        kept_.contains(next) || known(e)) {
      continue;
    }
    ahead.push_back(next);
  }
  return ahead;
}

std::optional<DirectoryScan::Answer> DirectoryScan::Take(uint32_t entry) {
  auto it = kept_.find(entry);
  if (it == kept_.end()) return {};
  Answer answer = std::move(it->second);
  kept_.erase(it);
  if (answer.found.fd.valid()) policy_.FdTaken();
  // Only a full batch says that a longer one would have been good too.
  if (kept_.empty() && batch_ + 1 >= window_) policy_.BatchUsed();
  return answer;
}

void DirectoryScan::Keep(Answers& answers) {
  Answers rest;
  // What was passed over so far goes when there is too much of it.
  if (kept_.size() + answers.size() > kMaxKept) rest = Drop();
  batch_ = answers.size();
  for (auto& [entry, answer] : answers) {
    // The name may have changed, or another thread asked for it, while this answer was on its way.
    bool usable = answer.found.error == Errno::kOK && !changed_.contains(At(entry).name);
    bool has_fd = answer.found.fd.valid();
    if (!usable || !kept_.try_emplace(entry, std::move(answer)).second) {
      rest.insert_or_assign(entry, std::move(answer));
    } else if (has_fd) {
      policy_.FdWaits();
    }
  }
  answers = std::move(rest);
}

DirectoryScan::Answers DirectoryScan::Drop() {
  for (const auto& [entry, answer] : kept_) {
    if (answer.found.fd.valid()) policy_.FdTaken();
  }
  if (2 * kept_.size() > batch_ && batch_ >= ReadAheadPolicy::kMinWindow - 1) policy_.BatchWasted();
  return std::exchange(kept_, {});
}

bool DirectoryScan::Changed(std::string_view name, Answers& stale) {
  if (changed_.contains(name)) return true;
  if (changed_.size() >= kMaxChanged) return false;
  changed_.emplace(name);
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (At(it->first).name != name) continue;
    if (it->second.found.fd.valid()) policy_.FdTaken();
    stale.insert(kept_.extract(it));
    break;
  }
  return true;
}

}  // namespace moat
