#include "sentry/syscalls/trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sys/mman.h>

#include <cstring>

#include "fs/vfs/file.h"
#include "fs/vfs/mount.h"
#include "platform/base/log.h"
#include "sentry/kernel/task.h"

namespace moat::trace {

struct FlagName {
  uint64_t bit;
  std::string_view name;
};

namespace {

constexpr size_t kMaxString = 64;
// Above this an unsigned number is most likely an address or a mask.
constexpr uint64_t kHexFrom = 1 << 20;

constexpr FlagName kOpenFlags[] = {
    {O_CREAT, "O_CREAT"},     {O_EXCL, "O_EXCL"},           {O_NOCTTY, "O_NOCTTY"},     {O_TRUNC, "O_TRUNC"},
    {O_APPEND, "O_APPEND"},   {O_NONBLOCK, "O_NONBLOCK"},   {O_DSYNC, "O_DSYNC"},       {O_ASYNC, "O_ASYNC"},
    {O_DIRECT, "O_DIRECT"},   {O_DIRECTORY, "O_DIRECTORY"}, {O_NOFOLLOW, "O_NOFOLLOW"}, {O_NOATIME, "O_NOATIME"},
    {O_CLOEXEC, "O_CLOEXEC"}, {O_PATH, "O_PATH"},           {0100000, "O_LARGEFILE"},
};
constexpr FlagName kAtFlags[] = {
    {AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"},
    {AT_REMOVEDIR, "AT_REMOVEDIR|AT_EACCESS"},
    {AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"},
    {AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"},
    {AT_EMPTY_PATH, "AT_EMPTY_PATH"},
};
constexpr FlagName kProtFlags[] = {
    {PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}, {PROT_GROWSDOWN, "PROT_GROWSDOWN"}};
constexpr FlagName kMapFlags[] = {
    {MAP_SHARED, "MAP_SHARED"},       {MAP_PRIVATE, "MAP_PRIVATE"},     {MAP_FIXED, "MAP_FIXED"},
    {MAP_ANONYMOUS, "MAP_ANONYMOUS"}, {MAP_GROWSDOWN, "MAP_GROWSDOWN"}, {MAP_DENYWRITE, "MAP_DENYWRITE"},
    {MAP_LOCKED, "MAP_LOCKED"},       {MAP_NORESERVE, "MAP_NORESERVE"}, {MAP_POPULATE, "MAP_POPULATE"},
    {MAP_STACK, "MAP_STACK"},         {MAP_HUGETLB, "MAP_HUGETLB"},     {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"},
};
constexpr FlagName kCloneFlags[] = {
    {CLONE_VM, "CLONE_VM"},
    {CLONE_FS, "CLONE_FS"},
    {CLONE_FILES, "CLONE_FILES"},
    {CLONE_SIGHAND, "CLONE_SIGHAND"},
    {CLONE_PIDFD, "CLONE_PIDFD"},
    {CLONE_PTRACE, "CLONE_PTRACE"},
    {CLONE_VFORK, "CLONE_VFORK"},
    {CLONE_PARENT, "CLONE_PARENT"},
    {CLONE_THREAD, "CLONE_THREAD"},
    {CLONE_NEWNS, "CLONE_NEWNS"},
    {CLONE_SYSVSEM, "CLONE_SYSVSEM"},
    {CLONE_SETTLS, "CLONE_SETTLS"},
    {CLONE_PARENT_SETTID, "CLONE_PARENT_SETTID"},
    {CLONE_CHILD_CLEARTID, "CLONE_CHILD_CLEARTID"},
    {CLONE_CHILD_SETTID, "CLONE_CHILD_SETTID"},
    {CLONE_NEWCGROUP, "CLONE_NEWCGROUP"},
    {CLONE_NEWUTS, "CLONE_NEWUTS"},
    {CLONE_NEWIPC, "CLONE_NEWIPC"},
    {CLONE_NEWUSER, "CLONE_NEWUSER"},
    {CLONE_NEWPID, "CLONE_NEWPID"},
    {CLONE_NEWNET, "CLONE_NEWNET"},
};

template <size_t N>
void Flags(uint64_t bits, const FlagName (&names)[N], std::string& out) {
  AppendFlags(bits, names, N, out);
}

}  // namespace

void AppendFlags(uint64_t bits, const FlagName* names, size_t count, std::string& out) {
  const size_t start = out.size();
  for (size_t i = 0; i < count; ++i) {
    if ((bits & names[i].bit) != names[i].bit) continue;
    if (out.size() != start) out += '|';
    out += names[i].name;
    bits &= ~names[i].bit;
  }
  if (bits != 0 || out.size() == start) {
    if (out.size() != start) out += '|';
    fmt::format_to(std::back_inserter(out), "{:#x}", bits);
  }
}

void Append(Task&, int64_t v, std::string& out) { fmt::format_to(std::back_inserter(out), "{}", v); }

void Append(Task&, uint64_t v, std::string& out) {
  if (v >= kHexFrom) {
    fmt::format_to(std::back_inserter(out), "{:#x}", v);
  } else {
    fmt::format_to(std::back_inserter(out), "{}", v);
  }
}

void AppendAddress(GuestAddr addr, std::string& out) {
  if (addr == 0) {
    out += "NULL";
  } else {
    fmt::format_to(std::back_inserter(out), "{:#x}", addr);
  }
}

void AppendString(Task& t, GuestAddr addr, std::string& out) {
  if (addr == 0) {
    out += "NULL";
    return;
  }
  char text[kMaxString];
  const size_t got = t.memory().CopyIn(text, addr, sizeof text);
  if (got == 0) {
    AppendAddress(addr, out);
    return;
  }
  const size_t length = strnlen(text, got);
  out += '"';
  for (size_t i = 0; i < length; ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c >= ' ' && c < 0x7f) {
      out += static_cast<char>(c);
    } else {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", c);
    }
  }
  out += length == sizeof text ? "\"..." : "\"";
}

void AppendFd(Task& t, int32_t fd, std::string& out) {
  Append(t, static_cast<int64_t>(fd), out);
  Result<RefPtr<File>> file = t.GetFile(fd);
  if (!file.ok() || !(*file)->path()) return;
  out += '<';
  out += t.mount_ns()->PathName((*file)->path(), t.fs().root());
  out += '>';
}

void Append(Task& t, FdNum fd, std::string& out) { AppendFd(t, ToInt(fd), out); }

void Append(Task& t, DirFdNum fd, std::string& out) {
  if (ToInt(fd) == AT_FDCWD) {
    out += "AT_FDCWD";
  } else {
    AppendFd(t, ToInt(fd), out);
  }
}

void Append(Task&, OpenFlagBits v, std::string& out) {
  const uint64_t bits = static_cast<uint32_t>(Raw(v));
  constexpr std::string_view kAccess[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
  out += kAccess[bits & O_ACCMODE];
  if (const uint64_t rest = bits & ~uint64_t{O_ACCMODE}; rest != 0) {
    out += '|';
    Flags(rest, kOpenFlags, out);
  }
}

void Append(Task&, AtFlagBits v, std::string& out) { Flags(static_cast<uint32_t>(Raw(v)), kAtFlags, out); }

void Append(Task&, ProtBits v, std::string& out) {
  if (Raw(v) == PROT_NONE) {
    out += "PROT_NONE";
  } else {
    Flags(static_cast<uint32_t>(Raw(v)), kProtFlags, out);
  }
}

void Append(Task&, MapFlagBits v, std::string& out) { Flags(static_cast<uint32_t>(Raw(v)), kMapFlags, out); }

void Append(Task&, CloneFlagBits v, std::string& out) {
  Flags(Raw(v) & ~uint64_t{CSIGNAL}, kCloneFlags, out);
  if ((Raw(v) & CSIGNAL) != 0) fmt::format_to(std::back_inserter(out), "|{}", Raw(v) & CSIGNAL);
}

void Append(Task&, FileMode v, std::string& out) { fmt::format_to(std::back_inserter(out), "{:#o}", Raw(v)); }

void Append(Task&, SignalNum v, std::string& out) {
  if (const char* name = sigabbrev_np(Raw(v)); name != nullptr) {
    out += "SIG";
    out += name;
  } else {
    fmt::format_to(std::back_inserter(out), "{}", Raw(v));
  }
}

void Append(Task&, ClockNum v, std::string& out) {
  constexpr std::string_view kNames[] = {
      "CLOCK_REALTIME",       "CLOCK_MONOTONIC",       "CLOCK_PROCESS_CPUTIME_ID", "CLOCK_THREAD_CPUTIME_ID",
      "CLOCK_MONOTONIC_RAW",  "CLOCK_REALTIME_COARSE", "CLOCK_MONOTONIC_COARSE",   "CLOCK_BOOTTIME",
      "CLOCK_REALTIME_ALARM", "CLOCK_BOOTTIME_ALARM",
  };
  if (const int32_t clock = Raw(v); clock >= 0 && clock < static_cast<int32_t>(std::size(kNames))) {
    out += kNames[clock];
  } else {
    fmt::format_to(std::back_inserter(out), "{}", clock);
  }
}

void LogCall(Task& t, std::string_view call, int64_t result) {
  std::string line = fmt::format("[{:5}] {:15} {} = ", t.RootTid(), t.comm(), call);
  constexpr int64_t kMaxErrno = 4095;
  const Errno error = static_cast<Errno>(-result);
  if (result >= 0 || result < -kMaxErrno) {
    Append(t, static_cast<uint64_t>(result), line);
  } else if (error >= kERESTARTSYS && error <= kERESTART_RESTARTBLOCK) {
    line += "? (to be restarted)";
  } else {
    fmt::format_to(std::back_inserter(line), "-1 {}", ErrnoName(error));
  }
  LogLine(LogLevel::kInfo, line);
}

}  // namespace moat::trace
