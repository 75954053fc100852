// CodeStore: what all processes of a sandbox share of rewritten code: the patcher, and the part of its tables that is
// the same in all of them. Outlives all address spaces. Thread-safe.
#ifndef MOAT_SENTRY_CODE_CODE_STORE_H_
#define MOAT_SENTRY_CODE_CODE_STORE_H_

#include <memory>

#include "platform/base/result.h"
#include "platform/code_patch.h"
#include "platform/memory/memory_file.h"

namespace moat {

class CodeStore {
 public:
  // `tables`: the address of the tables in guest memory, of which the first `shared` bytes are the same memory for all.
  static Result<std::unique_ptr<CodeStore>> Create(CodePatcher& patcher, MemoryFile& memory, GuestAddr tables,
                                                   uint64_t shared);
  ~CodeStore();

  CodePatcher& patcher() { return patcher_; }
  MemoryFile& memory() { return memory_; }
  // The shared tables, of which an address space maps its own reference.
  FileRange tables() const { return tables_; }
  // A patch's part of the tables, before any process has the code. False: it does not belong there.
  bool WriteTables(const CodePatch& patch);

 private:
  CodeStore(CodePatcher& patcher, MemoryFile& memory, GuestAddr address, FileRange tables)
      : patcher_(patcher), memory_(memory), address_(address), tables_(tables) {}
  CodePatcher& patcher_;
  MemoryFile& memory_;
  const GuestAddr address_;
  const FileRange tables_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_CODE_CODE_STORE_H_
