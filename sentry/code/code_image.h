// CodeImage: pages of a file's code in which sites were rewritten, in the memory file, for all processes that map the
// file. Immutable. A CodeFile makes a new one when it knows of more sites; processes keep what they have.
#ifndef MOAT_SENTRY_CODE_CODE_IMAGE_H_
#define MOAT_SENTRY_CODE_CODE_IMAGE_H_

#include <cstdint>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/code_patch.h"
#include "platform/memory/memory_file.h"

namespace moat {

// One rewritten instruction of a file: taken from the patcher as long as anybody refers to it. Immutable.
class CodeSite final : public RefCounted {
 public:
  // `patch`: planned by `patcher`, at offsets in the file. `originals`: what its pieces of code overwrite, in their
  // order.
  CodeSite(CodePatcher& patcher, uint64_t behind, CodePatch patch, std::vector<CodePatch::Piece> originals)
      : behind(behind), patch(std::move(patch)), originals(std::move(originals)), patcher_(patcher) {}

  const uint64_t behind;  // the instruction, in the file
  const CodePatch patch;
  const std::vector<CodePatch::Piece> originals;  // the last one is the instruction itself; others are padding

  uint64_t page() const { return originals.back().address & ~uint64_t{kPageSize - 1}; }

 private:
  ~CodeSite() override { patcher_.Release(patch.site); }
  CodePatcher& patcher_;
};

class CodeImage final : public RefCounted {
 public:
  struct Piece {
    uint64_t start, end;  // in the file, whole pages
    uint64_t memory;      // of `start`, in the memory file
    FileRange range() const { return {memory, memory + (end - start)}; }
  };
  // Takes over a reference on each piece's memory.
  CodeImage(MemoryFile& memory, std::vector<Piece> pieces, std::vector<RefPtr<const CodeSite>> sites);

  const std::vector<Piece>& pieces() const { return pieces_; }  // in order
  const std::vector<RefPtr<const CodeSite>>& sites() const { return sites_; }
  const RefPtr<const PatchSet>& patches() const { return patches_; }

 private:
  ~CodeImage() override;
  MemoryFile& memory_;
  const std::vector<Piece> pieces_;
  const std::vector<RefPtr<const CodeSite>> sites_;
  const RefPtr<const PatchSet> patches_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_CODE_IMAGE_H_
