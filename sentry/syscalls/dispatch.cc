#include "sentry/syscalls/dispatch.h"

#include <array>
#include <atomic>
#include <utility>

#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/seccomp_filter.h"
#include "sentry/kernel/syscall_entry.h"
#include "sentry/syscalls/argument_decode.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/trace.h"

namespace moat {

namespace {

// One instance per handler: decodes the registers by its parameter types.
template <auto kHandler>
struct Caller;

template <typename... Args, Result<int64_t> (*kHandler)(Task&, Args...)>
struct Caller<kHandler> {
  static Result<int64_t> Invoke(Task& t, const Registers& regs) {
    return InvokeAt(t, regs, std::index_sequence_for<Args...>{});
  }
  static void Format(Task& t, const Registers& regs, std::string& out) {
    FormatAt(t, regs, out, std::index_sequence_for<Args...>{});
  }

 private:
  template <size_t... kIndex>
  static Result<int64_t> InvokeAt(Task& t, const Registers& regs, std::index_sequence<kIndex...>) {
    return kHandler(t, DecodeArgument<Args>(regs.SyscallArg(kIndex))...);
  }
  template <size_t... kIndex>
  static void FormatAt(Task& t, const Registers& regs, std::string& out, std::index_sequence<kIndex...>) {
    (AppendOne<Args, kIndex>(t, regs, out), ...);
  }
  template <typename T, size_t kIndex>
  static void AppendOne(Task& t, const Registers& regs, std::string& out) {
    if (kIndex != 0) out += ", ";
    trace::AppendAny(t, DecodeArgument<T>(regs.SyscallArg(kIndex)), out);
  }
};

using Table = std::array<SyscallInfo, kSyscallTableSize>;

constexpr Table MakeTable() {
  Table table{};
#define SYSCALL(number, call, handler, types) \
  table[number] = {#call, SyscallStatus::kImplemented, "", Caller<&handler>::Invoke, Caller<&handler>::Format, kENOSYS};
#define PARTIAL(number, call, handler, note, types) \
  table[number] = {#call, SyscallStatus::kPartial, note, Caller<&handler>::Invoke, Caller<&handler>::Format, kENOSYS};
#define MISSING(number, call, error, note) \
  table[number] = {#call, SyscallStatus::kMissing, note, nullptr, nullptr, Errno::k##error};
#include "sentry/syscalls/syscalls.inc"
#undef SYSCALL
#undef PARTIAL
#undef MISSING
  return table;
}

constinit const Table kTable = MakeTable();
std::atomic<bool> logged[kSyscallTableSize];

Result<int64_t> Call(Task& t, const SyscallInfo* info, uint64_t number) {
  if (t.seccomp_mode() != 0) [[unlikely]] {
    Result<int64_t> answer = kENOSYS;
    if (!CheckSeccomp(t, &answer)) return answer;
    if (t.regs().SyscallNumber() != number) {  // a tracer's doing
      number = t.regs().SyscallNumber();
      info = FindSyscall(number);
    }
  }
  if (info == nullptr) [[unlikely]] {
    MOAT_LOG(kInfo, "system call {}: no such call, answers ENOSYS", number);
    return kENOSYS;
  }
  if (info->invoke == nullptr) [[unlikely]] {
    if (!logged[number].exchange(true, std::memory_order_relaxed)) {
      MOAT_LOG(kWarning, "{}: not implemented, answers {}", info->name, ErrnoName(info->missing_errno));
    }
    return info->missing_errno;
  }
  return info->invoke(t, t.regs());
}

}  // namespace

const SyscallInfo* FindSyscall(uint64_t number) {
  if (number >= kTable.size() || kTable[number].name.empty()) return nullptr;
  return &kTable[number];
}

void InvokeSyscall(Task& t) {
  const uint64_t number = t.regs().SyscallNumber();
  const SyscallInfo* info = FindSyscall(number);
  if (!t.kernel().trace_syscalls.load(std::memory_order_relaxed)) [[likely]] {
    t.FinishSyscall(Call(t, info, number));
    return;
  }
  // Before the call: it may change the registers (execve, rt_sigreturn) and not return for long.
  std::string text(info != nullptr ? info->name : "unknown_call");
  text += '(';
  if (info != nullptr && info->format != nullptr) info->format(t, t.regs(), text);
  text += ')';
  t.FinishSyscall(Call(t, info, number));
  trace::LogCall(t, text, t.regs().Return());
}

void InstallSyscallTable() { syscall_entry = InvokeSyscall; }

}  // namespace moat
