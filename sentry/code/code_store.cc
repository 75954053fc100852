#include "sentry/code/code_store.h"

#include "platform/memory/safe_copy.h"

namespace moat {

Result<std::unique_ptr<CodeStore>> CodeStore::Create(CodePatcher& patcher, MemoryFile& memory, GuestAddr tables,
                                                     uint64_t shared) {
  const FileRange range = TRY(memory.Allocate(shared, MemoryKind::kKernel));
  return std::unique_ptr<CodeStore>(new CodeStore(patcher, memory, tables, range));
}

CodeStore::~CodeStore() { memory_.Unref(tables_); }

bool CodeStore::WriteTables(const CodePatch& patch) {
  for (const CodePatch::Piece& piece : patch.tables) {
    const uint64_t at = piece.address - address_;
    if (at > tables_.length() || piece.bytes.size() > tables_.length() - at) return false;
    Result<std::byte*> to = memory_.Pointer(tables_.start + at);
    if (!to.ok() || SafeCopy(*to, piece.bytes.data(), piece.bytes.size()) != piece.bytes.size()) return false;
  }
  return true;
}

}  // namespace moat
