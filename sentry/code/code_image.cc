#include "sentry/code/code_image.h"

namespace moat {
namespace {

RefPtr<const PatchSet> SetOf(const std::vector<RefPtr<const CodeSite>>& sites) {
  std::vector<uint32_t> numbers;
  std::vector<RefPtr<const RefCounted>> owners;
  for (const RefPtr<const CodeSite>& site : sites) {
    numbers.push_back(site->patch.site);
    owners.push_back(site);
  }
  return MakeRef<PatchSet>(std::move(numbers), std::move(owners));
}

}  // namespace

CodeImage::CodeImage(MemoryFile& memory, std::vector<Piece> pieces, std::vector<RefPtr<const CodeSite>> sites)
    : memory_(memory), pieces_(std::move(pieces)), sites_(std::move(sites)), patches_(SetOf(sites_)) {}

CodeImage::~CodeImage() {
  for (const Piece& piece : pieces_) memory_.Unref(piece.range());
}

}  // namespace moat
