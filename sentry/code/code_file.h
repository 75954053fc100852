// CodeFile: what the sandbox knows about the code of one file whose bytes cannot change, kept beside them
// (Mappable::Derived). Programs that are started again and again run the same code: what is worth rewriting is found
// once, and later processes start with it. All of that happens aside: a file that is mapped once costs nothing.
// Thread-safe. Lock: kLeaf.
#ifndef MOAT_SENTRY_CODE_CODE_FILE_H_
#define MOAT_SENTRY_CODE_CODE_FILE_H_

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "platform/base/mutex.h"
#include "platform/memory/mappable.h"
#include "sentry/code/code_image.h"
#include "sentry/code/code_store.h"
#include "sentry/code/object_reader.h"

namespace moat {

class CodeFile final : public RefCounted {
 public:
  // Null where the bytes may change. `store` must outlive it.
  static RefPtr<CodeFile> Of(Mappable& object, CodeStore& store);

  // A process maps [start, end) of the file as code: what is rewritten there, if anything is yet.
  RefPtr<const CodeImage> NoteMapped(const RefPtr<Mappable>& object, uint64_t start, uint64_t end);

  // A process is at its end in which the `syscall` in front of `behind` has made so many calls, `number` the last one.
  void NoteCalls(uint64_t behind, uint32_t number, uint32_t calls);
  // After some of those: what has come together is rewritten for later processes.
  void BuildWanted(const RefPtr<Mappable>& object);

  // What NoteMapped starts aside when the file is mapped again, at once; for tests.
  void ScanForTesting(Mappable& object, uint64_t start, uint64_t end) { Scan(object, start, end); }
  void BuildWantedForTesting(Mappable& object) { BuildNow(object); }

 private:
  explicit CodeFile(CodeStore& store) : store_(store) {}
  // The work that is done aside, by one thread at a time. False: it is being done, or no CPU is free.
  bool StartWork(const RefPtr<Mappable>& object, absl::AnyInvocable<void(CodeFile&, Mappable&)> work);
  struct Wanted {
    uint64_t behind;
    CodePatcher::Kind kind;
    uint32_t number;
  };
  // Looks for instructions that are slow wherever they stand.
  void Scan(Mappable& object, uint64_t start, uint64_t end);
  void BuildNow(Mappable& object);
  // Plans what is wanted, and makes a new image of it and what there was.
  void Build(Mappable& object, const std::vector<Wanted>& wanted);
  RefPtr<const CodeSite> PlanSite(ObjectReader& file, const std::vector<RefPtr<const CodeSite>>& others,
                                  const Wanted& wanted);
  std::optional<CodeImage::Piece> MakePiece(ObjectReader& file, const std::vector<RefPtr<const CodeSite>>& sites,
                                            uint64_t start, uint64_t end);

  CodeStore& store_;
  Mutex mu_{LockRank::kLeaf};
  int mapped_ ABSL_GUARDED_BY(mu_) = 0;
  bool scanned_ ABSL_GUARDED_BY(mu_) = false;
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<uint64_t, uint32_t> calls_ ABSL_GUARDED_BY(mu_);  // by address; kDecided: nothing is to be done
  std::vector<Wanted> wanted_ ABSL_GUARDED_BY(mu_);
  RefPtr<const CodeImage> image_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_CODE_FILE_H_
