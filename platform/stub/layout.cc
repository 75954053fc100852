#include "platform/stub/layout.h"

extern "C" {
extern const char moat_trampoline_start[], moat_trampoline_end[];
extern const char moat_trampoline_syscall[], moat_trampoline_batch[], moat_trampoline_clone_thread[];
extern const char moat_trampoline_clone_process[], moat_trampoline_idle[], moat_trampoline_idle_end[];
extern const char moat_trampoline_exit[], moat_trampoline_zygote[];
}

namespace moat::stub {
namespace {
uint64_t Address(const char* label) { return kText + static_cast<uint64_t>(label - moat_trampoline_start); }
}  // namespace

const Entries& TrampolineEntries() {
  static const Entries entries = {Address(moat_trampoline_syscall),      Address(moat_trampoline_batch),
                                  Address(moat_trampoline_clone_thread), Address(moat_trampoline_clone_process),
                                  Address(moat_trampoline_idle),         Address(moat_trampoline_idle_end),
                                  Address(moat_trampoline_exit),         Address(moat_trampoline_zygote)};
  return entries;
}

TrampolineImage Trampoline() {
  return {moat_trampoline_start, static_cast<uint64_t>(moat_trampoline_end - moat_trampoline_start)};
}

}  // namespace moat::stub
