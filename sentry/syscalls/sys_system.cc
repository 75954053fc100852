// What concerns the system as a whole: names, memory and load, randomness, and the calls whose privilege nobody in a
// sandbox has. Source: uname(2), sysinfo(2), sethostname(2), getrandom(2), syslog(2), reboot(2), personality(2).
#include <sys/random.h>

#include <cstring>

#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/random.h"
#include "sentry/kernel/system_info.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

constexpr size_t kNameMax = 64;  // __NEW_UTS_LEN

void CopyField(char (&field)[65], std::string_view value) {
  memcpy(field, value.data(), std::min(value.size(), kNameMax));
}

Result<std::string> ReadUtsName(Task& t, GuestAddr name, int length) {
  RefPtr<UtsNamespace> uts = t.uts_ns();
  if (!t.cred().HasCapabilityIn(CAP_SYS_ADMIN, uts->owner())) return kEPERM;
  if (length < 0 || static_cast<size_t>(length) > kNameMax) return kEINVAL;
  std::string value(static_cast<size_t>(length), '\0');
  if (t.memory().CopyIn(value.data(), name, value.size()) != value.size()) return kEFAULT;
  return value.substr(0, value.find('\0'));
}

}  // namespace

Result<int64_t> SysUname(Task& t, UserOut<abi::Utsname> out) {
  abi::Utsname name{};
  RefPtr<UtsNamespace> uts = t.uts_ns();
  CopyField(name.sysname, kSystemName);
  CopyField(name.nodename, uts->hostname());
  CopyField(name.release, (t.personality & 0x0020000) ? kSystemRelease26 : kSystemRelease);  // UNAME26
  CopyField(name.version, kSystemVersion);
  CopyField(name.machine, kSystemMachine);
  CopyField(name.domainname, uts->domainname());
  TRY(out.Write(t.memory(), name));
  return 0;
}

Result<int64_t> SysSethostname(Task& t, GuestAddr name, int length) {
  t.uts_ns()->set_hostname(TRY(ReadUtsName(t, name, length)));
  return 0;
}

Result<int64_t> SysSetdomainname(Task& t, GuestAddr name, int length) {
  t.uts_ns()->set_domainname(TRY(ReadUtsName(t, name, length)));
  return 0;
}

Result<int64_t> SysSysinfo(Task& t, UserOut<abi::Sysinfo> out) {
  MemoryInfo memory = ReadMemoryInfo(t.kernel());
  abi::Sysinfo info{};
  // Rounded up, as Linux does: never 0.
  info.uptime = (ReadHostClock(CLOCK_BOOTTIME) + kNanosPerSec - 1) / kNanosPerSec;
  for (unsigned long& load : info.loads) load = 0;
  info.totalram = memory.total;
  info.freeram = memory.free;
  info.sharedram = memory.shared;
  info.bufferram = 0;
  info.procs = static_cast<unsigned short>(std::min(t.kernel().task_count(), 0xffff));
  info.mem_unit = 1;
  TRY(out.Write(t.memory(), info));
  return 0;
}

Result<int64_t> SysGetrandom(Task& t, GuestAddr buf, size_t length, unsigned flags) {
  if (flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE)) return kEINVAL;
  if ((flags & GRND_RANDOM) && (flags & GRND_INSECURE)) return kEINVAL;
  length = std::min<size_t>(length, 0x7fffffff & ~(kPageSize - 1));
  size_t done = 0;
  std::byte chunk[1024];
  while (done < length) {
    size_t n = std::min(length - done, sizeof chunk);
    FillRandom(chunk, n);
    size_t copied = t.memory().CopyOut(buf + done, chunk, n);
    done += copied;
    if (copied != n) break;
    if (t.HasPendingInterrupt()) break;
  }
  if (done == 0 && length != 0) return kEFAULT;
  return static_cast<int64_t>(done);
}

Result<int64_t> SysPersonality(Task& t, uint64_t persona) {
  uint64_t old = t.personality;
  persona &= 0xffffffff;
  if (persona == 0xffffffff) return static_cast<int64_t>(old);
  // PER_LINUX and its flags; other personalities have had no code in Linux for long.
  t.personality = persona;
  return static_cast<int64_t>(old);
}

Result<int64_t> SysSyslog(Task& t, int type, GuestAddr buf, int length) {
  // dmesg_restrict is on: only sizes are free to ask for. The sandbox's kernel log is empty for its guests.
  constexpr int kReadAll = 3, kSizeUnread = 9, kSizeBuffer = 10;
  if (type != kReadAll && type != kSizeBuffer && !t.cred().HasCapability(CAP_SYSLOG)) return kEPERM;
  switch (type) {
    case 0:
    case 1:
    case 5:
    case 6:
    case 7:
      return 0;
    case 8:
      return length < 1 || length > 8 ? Result<int64_t>(kEINVAL) : 0;
    case 2:
    case kReadAll:
    case 4:
      if (buf == 0 || length < 0) return kEINVAL;
      return t.cred().HasCapability(CAP_SYSLOG) ? Result<int64_t>(0) : kEPERM;
    case kSizeUnread:
      return 0;
    case kSizeBuffer:
      return 1 << 17;
    default:
      return kEINVAL;
  }
}

Result<int64_t> SysReboot(Task& t, uint32_t magic1, uint32_t magic2, uint32_t cmd, GuestAddr arg) {
  // Container inits call reboot(2) with CAP_SYS_BOOT dropped; in a pid namespace Linux would kill its init.
  if (!t.cred().HasCapability(CAP_SYS_BOOT)) return kEPERM;
  constexpr uint32_t kMagic1 = 0xfee1dead;
  if (magic1 != kMagic1 || (magic2 != 672274793 && magic2 != 85072278 && magic2 != 369367448 && magic2 != 537993216)) {
    return kEINVAL;
  }
  switch (cmd) {
    case 0x00000000:  // CAD_OFF
    case 0x89abcdef:  // CAD_ON
      return kEINVAL;
    case 0x01234567:  // RESTART: the parent sees SIGHUP
    case 0xa1b2c3d4:
      t.kernel().SendSignalToAll(SIGKILL, *t.pid_ns());
      return 0;
    case 0xcdef0123:  // HALT
    case 0x4321fedc:  // POWER_OFF
      t.kernel().SendSignalToAll(SIGKILL, *t.pid_ns());
      return 0;
    default:
      return kEINVAL;
  }
}

Result<int64_t> SysAcct(Task& t, UserString) {
  if (!t.cred().HasCapability(CAP_SYS_PACCT)) return kEPERM;
  return kENOSYS;  // CONFIG_BSD_PROCESS_ACCT off
}

Result<int64_t> SysVhangup(Task& t) {
  if (!t.cred().HasCapability(CAP_SYS_TTY_CONFIG)) return kEPERM;
  return 0;
}

}  // namespace moat
