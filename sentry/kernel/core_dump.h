// Core dumps: the file "core" that a process leaves behind when a signal of that kind ends it, as the fixed
// kernel.core_pattern says. The thread that took the signal writes it while the others, killed already, wait on their
// way out. Source: core(5), elf(5), getrlimit(2) RLIMIT_CORE, prctl(2) PR_SET_DUMPABLE.
#ifndef MOAT_SENTRY_KERNEL_CORE_DUMP_H_
#define MOAT_SENTRY_KERNEL_CORE_DUMP_H_

#include <sys/user.h>

#include <vector>

#include "platform/base/mutex.h"
#include "platform/platform.h"
#include "sentry/kernel/signals.h"

namespace moat {

class File;
struct VfsContext;
class Task;

// What a core says of one thread.
struct CoreThread {
  int32_t tid = 0;
  user_regs_struct regs = {};
  ExtendedState extended;
  uint64_t pending = 0, blocked = 0;  // signal sets
};

class CoreDump : public RefCounted {
 public:
  // Limits and dumpability allow it.
  static bool Wanted(Task& t);

  explicit CoreDump(Task& dumper) : dumper_(dumper) {}

  // The dumping thread, after it has killed its thread group. When a file was written, the group's status says so.
  void Run(const SigInfo& info);
  // Every other thread of the group as it exits: leaves its state here and waits for the end of the dump.
  void Join(Task& t);

 private:
  void AwaitOthers();

  Task& dumper_;
  Mutex mu_{LockRank::kTask};
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<CoreThread> others_ ABSL_GUARDED_BY(mu_);
  std::vector<Task*> waiting_ ABSL_GUARDED_BY(mu_);
};

// core_file.cc: writes the ELF file of `t`'s process into the open `file`, at most `limit` bytes; `threads` begins with
// the one that the signal hit.
void WriteCoreFile(Task& t, const VfsContext& ctx, File& file, uint64_t limit, const SigInfo& info,
                   const std::vector<CoreThread>& threads);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_CORE_DUMP_H_
