// capget(2), capset(2).
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

// How many 32-bit words a version has; 0: unknown.
size_t WordsOf(uint32_t version) {
  switch (version) {
    case _LINUX_CAPABILITY_VERSION_1:
      return 1;
    case _LINUX_CAPABILITY_VERSION_2:
    case _LINUX_CAPABILITY_VERSION_3:
      return 2;
    default:
      return 0;
  }
}

// The header; for an unknown version writes back the preferred one, as the man page says.
Result<abi::CapHeader> ReadHeader(Task& t, UserInOut<abi::CapHeader> header) {
  abi::CapHeader h = TRY(header.Read(t.memory()));
  if (WordsOf(h.version) != 0) return h;
  abi::CapHeader preferred = h;
  preferred.version = _LINUX_CAPABILITY_VERSION_3;
  TRY(header.Write(t.memory(), preferred));
  return kEINVAL;
}

}  // namespace

Result<int64_t> SysCapget(Task& t, UserInOut<abi::CapHeader> header, UserOut<abi::CapData> data) {
  Result<abi::CapHeader> read = ReadHeader(t, header);
  if (!read.ok()) {
    // A null data pointer asks only for the version.
    if (read.error() == kEINVAL && !data) return 0;
    return read.error();
  }
  if (read->pid < 0) return kEINVAL;
  RefPtr<const Credentials> cred = t.credentials();
  if (read->pid != 0 && read->pid != t.tid()) {
    RefPtr<Task> other = t.kernel().FindTask(read->pid, *t.pid_ns());
    if (!other) return kESRCH;
    cred = other->credentials();
  }
  if (!data) return 0;
  for (size_t i = 0; i < WordsOf(read->version); ++i) {
    auto word = [i](CapabilitySet s) { return static_cast<uint32_t>(s.bits >> (32 * i)); };
    TRY(data.WriteAt(t.memory(), i, {word(cred->effective), word(cred->permitted), word(cred->inheritable)}));
  }
  return 0;
}

Result<int64_t> SysCapset(Task& t, UserInOut<abi::CapHeader> header, UserIn<abi::CapData> data) {
  abi::CapHeader h = TRY(ReadHeader(t, header));
  if (h.pid != 0 && h.pid != t.tid()) return kEPERM;
  CapabilitySet effective, permitted, inheritable;
  for (size_t i = 0; i < WordsOf(h.version); ++i) {
    abi::CapData d = TRY(data.ReadAt(t.memory(), i));
    effective.bits |= static_cast<uint64_t>(d.effective) << (32 * i);
    permitted.bits |= static_cast<uint64_t>(d.permitted) << (32 * i);
    inheritable.bits |= static_cast<uint64_t>(d.inheritable) << (32 * i);
  }
  CapabilitySet all = CapabilitySet::All();
  effective = effective & all;
  permitted = permitted & all;
  inheritable = inheritable & all;

  const Credentials& old = t.cred();
  if (!permitted.IsSubsetOf(old.permitted) || !effective.IsSubsetOf(permitted)) return kEPERM;
  if (!old.HasCapability(CAP_SETPCAP) && !inheritable.IsSubsetOf(old.inheritable | old.permitted)) return kEPERM;
  if (!inheritable.IsSubsetOf(old.inheritable | old.bounding)) return kEPERM;
  RefPtr<Credentials> now = old.Copy();
  now->effective = effective;
  now->permitted = permitted;
  now->inheritable = inheritable;
  now->ambient = now->ambient & permitted & inheritable;
  t.SetCredentials(std::move(now));
  return 0;
}

}  // namespace moat
