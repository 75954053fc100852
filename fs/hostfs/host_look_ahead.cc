#include "fs/hostfs/host_look_ahead.h"

namespace moat {
namespace {

// No fiber changes its thread within a path walk: it does not suspend.
thread_local HostLookAhead* innermost = nullptr;

}  // namespace

HostLookAhead::HostLookAhead(RefPtr<HostInode> dir, std::span<const std::string_view> names)
    : first_(std::move(dir)), outer_(innermost), expected_(first_.get()) {
  innermost = this;
  names_.assign(names.begin(), names.end());
  name_changes_ = first_->host_fs().name_changes();
  Result<GoferClient::Walked> walked = first_->host_fs().client().Walk(first_->handle(), names);
  if (walked.ok()) {
    walked_ = std::move(walked).value();
  } else {
    walked_.error = kEIO;
  }
}

HostLookAhead::~HostLookAhead() {
  innermost = outer_;
  for (size_t i = next_; i < walked_.steps.size(); ++i) first_->host_fs().client().Forget(walked_.steps[i].handle);
}

std::optional<Result<RefPtr<Inode>>> HostLookAhead::Take(HostInode& dir, std::string_view name) {
  HostLookAhead* a = innermost;
  if (a == nullptr || a->expected_ != &dir || a->next_ >= a->names_.size() || a->names_[a->next_] != name) return {};
  HostFs& fs = dir.host_fs();
  if (fs.name_changes() != a->name_changes_) return {};
  if (a->next_ < a->walked_.steps.size()) {
    const gofer::WalkStep& step = a->walked_.steps[a->next_++];
    std::string target = a->next_ == a->walked_.steps.size() ? std::move(a->walked_.target) : std::string();
    RefPtr<HostInode> inode = fs.InodeOf(step.handle, step.attr, std::move(target));
    a->expected_ = inode.get();
    return Result<RefPtr<Inode>>(RefPtr<Inode>(std::move(inode)));
  }
  a->expected_ = nullptr;
  // Other errors are about what came before this name.
  if (a->next_ == a->walked_.steps.size() && a->walked_.error == kENOENT) return Result<RefPtr<Inode>>(kENOENT);
  return {};
}

}  // namespace moat
