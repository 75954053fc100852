// DirectoryScan: what the listing of a directory tells about the lookups in it. A name that is not listed is not there;
// and who looks up names in the order of the listing (find, tar, grep -r), or of the alphabet (git, a shell's *), will
// want the next ones soon: they are asked for together, and their answers wait here.
//
// For directories of exclusive mounts. Not thread-safe: the inode guards it. It makes no calls; the answers that it
// hands out are the caller's to use or to give back.
#ifndef MOAT_FS_HOSTFS_DIRECTORY_SCAN_H_
#define MOAT_FS_HOSTFS_DIRECTORY_SCAN_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "fs/hostfs/gofer_client.h"
#include "fs/hostfs/read_ahead_policy.h"

namespace moat {

class DirectoryScan {
 public:
  using Listing = std::vector<GoferClient::Entry>;
  // `exact`: gofer::kExact of all of it. `policy` must outlive the scan.
  DirectoryScan(std::shared_ptr<const Listing> listing, bool exact, ReadAheadPolicy& policy)
      : listing_(std::move(listing)), exact_(exact), policy_(policy) {}
  ~DirectoryScan();
  DirectoryScan(const DirectoryScan&) = delete;
  DirectoryScan& operator=(const DirectoryScan&) = delete;
  const std::shared_ptr<const Listing>& listing() const { return listing_; }

  struct Answer {
    GoferClient::Found found;
    uint64_t asked_at;  // HostFs::lost_changes() before the question
  };
  using Answers = std::map<uint32_t, Answer>;  // by index in the listing
  struct Step {
    bool missing = false;          // there is no such name
    bool directory = false;        // it is listed as a directory
    std::optional<Answer> answer;  // of an earlier batch
    // Else: entries that should be asked for together with the name, which is not among them.
    std::vector<uint32_t> ahead;
  };
  // What to do about a lookup of `name`. `known`: an entry that nobody will look up, as its object is in use already.
  Step Next(std::string_view name, absl::FunctionRef<bool(const GoferClient::Entry&)> known);
  bool IsMissing(std::string_view name);
  bool HasAnswers() const { return !kept_.empty(); }

  // Answers for entries that Next gave out. What is not kept, or makes room, is left in `answers`.
  void Keep(Answers& answers);
  // Takes all answers away.
  Answers Drop();

  // `name` came, went, or leads elsewhere: the listing says nothing about it any more. False when there are so many
  // such names that the listing has become useless. The name's answer, if there is one, goes to `stale`.
  [[nodiscard]] bool Changed(std::string_view name, Answers& stale);

  static constexpr size_t kMaxKept = 2 * ReadAheadPolicy::kMaxWindow;
  static constexpr size_t kMaxChanged = 1024;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  const GoferClient::Entry& At(uint32_t entry) const { return (*listing_)[entry]; }
  bool IsDir(uint32_t entry) const;
  uint32_t Find(std::string_view name);
  void BuildIndex();
  // The entry at `place` of the listing, or of the alphabet.
  uint32_t EntryAt(bool by_name, uint32_t place) const { return by_name ? by_name_[place] : place; }
  uint32_t PlaceOf(bool by_name, uint32_t entry) const;
  // Whether `entry` comes shortly behind the last one; `passed` then says whether entries of the other kind are
  // between.
  bool Follows(bool by_name, uint32_t entry, bool& passed) const;
  // Learns whether the caller looks up all that is listed, or directories only.
  void NoteOrder(uint32_t entry);
  std::vector<uint32_t> Plan(uint32_t entry, absl::FunctionRef<bool(const GoferClient::Entry&)> known);
  std::optional<Answer> Take(uint32_t entry);
  const std::shared_ptr<const Listing> listing_;
  const bool exact_;
  ReadAheadPolicy& policy_;
  std::set<std::string, std::less<>> changed_;
  std::vector<uint32_t>
      by_name_;             // entries in the order of their names; made when going along the listing finds nothing
  size_t compared_ = 0;     // names, for want of by_name_
  uint32_t last_ = kNone;   // the entry that was looked up last
  uint32_t window_ = 0;     // size of the last batch; 0: no order was seen
  bool same_kind_ = false;  // only directories, or only others, are looked up
  Answers kept_;
  size_t batch_ = 0;  // answers that the last batch brought
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_DIRECTORY_SCAN_H_
