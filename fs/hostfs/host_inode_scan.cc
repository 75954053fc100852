// Lookups on exclusive mounts: the listing answers for names that are not there, and siblings are asked for together
// (fs/hostfs/directory_scan.h). No lock is held over a round trip: what changed meanwhile is found out afterwards.
#include <dirent.h>

#include "fs/hostfs/host_inode.h"

namespace moat {
namespace {

// A directory that nobody has listed is listed for the sake of its lookups after this many, and more when it is large:
// a listing costs about as much as a lookup for each so many bytes of the directory.
constexpr uint64_t kLookupsBeforeListing = 3;
constexpr uint64_t kSmallDirectory = 4096;
constexpr uint64_t kBytesPerLookup = 1024;
constexpr uint64_t kNever = ~uint64_t{0};

}  // namespace

bool HostInode::ListingPaysLocked() {
  if (scan_ || listing_ || lookups_unlisted_ == kNever) return false;
  uint64_t size = attr_.size <= kSmallDirectory ? 0 : attr_.size / kBytesPerLookup;
  if (++lookups_unlisted_ <= kLookupsBeforeListing + size) return false;
  lookups_unlisted_ = 0;
  return true;
}

void HostInode::ReadListing() {
  uint64_t before = generation();
  Result<GoferClient::Listing> part = host_fs().client().Readdir(handle_, 0);
  if (part.ok() && part->at_end) {
    StoreListing(std::make_shared<const Listing>(std::move(part->entries)), part->exact, before);
  } else {
    // More than one round trip, or not readable: not for this purpose.
    MutexLock lock(mu_);
    lookups_unlisted_ = kNever;
  }
}

Result<RefPtr<Inode>> HostInode::LookupAmongSiblings(std::string_view name) {
  HostFs& fs = host_fs();
  for (;;) {
    bool list = false, used_up = false;
    DirectoryScan::Step step;
    std::shared_ptr<const Listing> listing;
    {
      MutexLock lock(mu_);
      if (scan_) {
        step = scan_->Next(name,
                           [&fs](const GoferClient::Entry& e) { return fs.IsKnown(e.dev_major, e.dev_minor, e.ino); });
        listing = scan_->listing();
        used_up = step.answer && !scan_->HasAnswers();
      } else {
        list = ListingPaysLocked();
      }
    }
    if (list) {
      ReadListing();
      continue;
    }
    if (step.missing) return kENOENT;
    if (used_up) fs.NoAnswers(*this);
    if (!step.answer) return AskWithSiblings(name, std::move(listing), step);
    DirectoryScan::Answer& answer = *step.answer;
    if (RefPtr<HostInode> inode = fs.InodeOfAnswer(answer.found, answer.asked_at)) {
      return Accept(std::move(inode), answer.found);
    }
    // So are the other answers of that time.
    fs.client().Forget(answer.found.handle);
    DropAnswers();
  }
}

Result<RefPtr<Inode>> HostInode::AskWithSiblings(std::string_view name, std::shared_ptr<const Listing> listing,
                                                 const DirectoryScan::Step& step) {
  HostFs& fs = host_fs();
  std::vector<std::string_view> names = {name};
  uint64_t directories = step.directory ? 1 : 0;
  for (uint32_t entry : step.ahead) {
    if ((*listing)[entry].type == DT_DIR) directories |= uint64_t{1} << names.size();
    names.push_back((*listing)[entry].name);
  }
  uint64_t asked_at = fs.lost_changes();
  std::vector<GoferClient::Found> found =
      TRY(fs.client().LookUp(handle_, names, fs.read_ahead().Flags(names.size()), directories));
  DirectoryScan::Answers answers;
  for (size_t i = 1; i < found.size(); ++i) {
    answers.try_emplace(step.ahead[i - 1], DirectoryScan::Answer{std::move(found[i]), asked_at});
  }
  if (!answers.empty()) {
    {
      MutexLock lock(mu_);
      if (scan_ && scan_->listing() == listing) scan_->Keep(answers);
    }
    GiveBack(std::move(answers));
    fs.HasAnswers(*this);
  }
  GoferClient::Found& first = found[0];
  if (first.error != Errno::kOK) return first.error;
  RefPtr<HostInode> inode = fs.InodeOf(first.handle, first.attr, std::move(first.target));
  if (fs.lost_changes() != asked_at) first.listing.at_end = false;
  return Accept(std::move(inode), first);
}

RefPtr<Inode> HostInode::Accept(RefPtr<HostInode> inode, GoferClient::Found& found) {
  ReadAheadPolicy& policy = host_fs().read_ahead();
  if (inode->is_dir()) {
    if (found.listing.at_end && !inode->CachedListing()) {
      // An inode that has seen no change yet (0) has seen none since the listing was made, as HostFs has none lost.
      auto entries = std::make_shared<const Listing>(std::move(found.listing.entries));
      inode->StoreListing(std::move(entries), found.listing.exact, 0);
    }
    inode->NoteLookup(policy.directories);
  } else if (inode->type() == S_IFREG && inode->CachedHostFd(false) < 0) {
    inode->NoteLookup(policy.files);
  }
  if (found.fd.valid()) {
    {
      MutexLock lock(inode->mu_);
      if (!inode->read_fd_.valid()) inode->read_fd_ = std::move(found.fd);
    }
    host_fs().FileIdle(*inode);
  }
  return inode;
}

void HostInode::GiveBack(DirectoryScan::Answers answers) {
  for (const auto& [entry, answer] : answers) host_fs().client().Forget(answer.found.handle);
}

void HostInode::DropAnswers() {
  DirectoryScan::Answers answers;
  {
    MutexLock lock(mu_);
    if (scan_) answers = scan_->Drop();
  }
  GiveBack(std::move(answers));
}

std::shared_ptr<const HostInode::Listing> HostInode::CachedListing() const {
  MutexLock lock(mu_);
  return listing_;
}

void HostInode::StoreListing(std::shared_ptr<const Listing> listing, bool exact, uint64_t generation) {
  HostFs& fs = host_fs();
  if (!fs.exclusive()) return;
  DirectoryScan::Answers answers;
  {
    auto scan = std::make_unique<DirectoryScan>(listing, exact, fs.read_ahead());
    MutexLock lock(mu_);
    if (generation != generation_) return;
    if (scan_) answers = scan_->Drop();
    scan_ = std::move(scan);
    listing_ = std::move(listing);
  }
  GiveBack(std::move(answers));
}

void HostInode::NamesChanged(std::string_view name) {
  host_fs().NameChanged();
  changed_.store(true, std::memory_order_relaxed);
  std::shared_ptr<const Listing> listing;
  std::unique_ptr<DirectoryScan> scan;
  DirectoryScan::Answers answers;
  {
    MutexLock lock(mu_);
    ++generation_;
    attr_valid_ = false;
    listing = std::move(listing_);
    if (scan_ && !name.empty() && !scan_->Changed(name, answers)) {
      answers = scan_->Drop();
      scan = std::move(scan_);
      lookups_unlisted_ = 0;
    }
  }
  GiveBack(std::move(answers));
}

}  // namespace moat
