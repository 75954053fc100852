#include "sentry/socket/control_message.h"

#include <sys/socket.h>

#include <cstring>

#include "platform/abi/socket.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/socket/unix_socket_file.h"

namespace moat {
namespace {

Result<UnixRight> MakeRight(Task& t, int fd) {
  RefPtr<File> file = TRY(t.GetFile(fd));
  UnixRight right;
  if (auto* s = dynamic_cast<UnixSocketFile*>(file.get())) {
    right.identity = file.get();
    right.socket = &s->socket();
  }
  right.object = MakeRef<InFlightFile>(std::move(file), t.account());
  return right;
}

Result<void> CheckInFlight(Task& t, size_t more) {
  RefPtr<UserAccount> account = t.account();
  if (!account) return {};
  const auto limit = static_cast<int64_t>(
      std::min<uint64_t>(t.thread_group().rlimits().Soft(RLIMIT_NOFILE), static_cast<uint64_t>(INT64_MAX)));
  if (account->in_flight_files.load(std::memory_order_relaxed) + static_cast<int64_t>(more) <= limit) return {};
  if (t.cred().HasCapability(CAP_SYS_RESOURCE) || t.cred().HasCapability(CAP_SYS_ADMIN)) return {};
  return kETOOMANYREFS;
}

// May the sender claim to be this?
Result<UnixCredentials> CheckCredentials(Task& t, const abi::Ucred& c) {
  const Credentials& own = t.cred();
  RefPtr<PidNamespace> ns = t.pid_ns();
  UnixCredentials out = CredentialsOf(t);
  if (c.pid != t.tgid()) {
    if (!own.HasCapabilityIn(CAP_SYS_ADMIN, ns->owner())) return kEPERM;
    RefPtr<Pid> pid = t.kernel().FindPid(c.pid, *ns);
    if (!pid) return kESRCH;
    out.process = std::move(pid);
  }
  out.uid = own.user_ns->ToKuid(c.uid);
  out.gid = own.user_ns->ToKgid(c.gid);
  if (out.uid == kNoId || out.gid == kNoId) return kEINVAL;
  if (out.uid != own.uid && out.uid != own.euid && out.uid != own.suid && !own.HasCapability(CAP_SETUID)) return kEPERM;
  if (out.gid != own.gid && out.gid != own.egid && out.gid != own.sgid && !own.HasCapability(CAP_SETGID)) return kEPERM;
  return out;
}

void Append(std::string& out, int level, int type, std::string_view data) {
  abi::Cmsghdr h{sizeof h + data.size(), level, type};
  out.append(reinterpret_cast<const char*>(&h), sizeof h);
  out += data;
}

void Pad(std::string& out, size_t room) { out.resize(std::min<size_t>(abi::CmsgAlign(out.size()), room), '\0'); }

// Appends one message, cut to what has room. False when it was cut.
bool AppendWhole(std::string& out, size_t room, int type, std::string_view data) {
  Pad(out, room);
  const size_t left = room - out.size();
  if (left < sizeof(abi::Cmsghdr)) return false;
  const bool fits = left >= sizeof(abi::Cmsghdr) + data.size();
  Append(out, SOL_SOCKET, type, data.substr(0, left - sizeof(abi::Cmsghdr)));
  return fits;
}

}  // namespace

InFlightFile::InFlightFile(RefPtr<File> file, RefPtr<UserAccount> account)
    : file_(std::move(file)), account_(std::move(account)) {
  if (account_) account_->in_flight_files.fetch_add(1, std::memory_order_relaxed);
}

InFlightFile::~InFlightFile() {
  if (account_) account_->in_flight_files.fetch_sub(1, std::memory_order_relaxed);
}

UnixCredentials CredentialsOf(Task& t) {
  UnixCredentials c;
  c.process = RefPtr<Pid>(&t.thread_group().pid());
  c.uid = t.cred().euid;
  c.gid = t.cred().egid;
  return c;
}

std::string EncodeUcred(Task& t, const UnixCredentials& c) {
  abi::Ucred u{0, t.user_ns().FromKuid(c.uid), t.user_ns().FromKgid(c.gid)};
  if (auto* pid = dynamic_cast<Pid*>(c.process.get())) u.pid = pid->NrIn(*t.pid_ns());
  return std::string(reinterpret_cast<const char*>(&u), sizeof u);
}

Result<OutgoingControl> ParseControl(Task& t, std::string_view buffer) {
  OutgoingControl out;
  while (buffer.size() >= sizeof(abi::Cmsghdr)) {
    abi::Cmsghdr h;
    memcpy(&h, buffer.data(), sizeof h);
    if (h.length < sizeof h || h.length > buffer.size()) return kEINVAL;
    std::string_view data = buffer.substr(sizeof h, h.length - sizeof h);
    buffer.remove_prefix(std::min<uint64_t>(abi::CmsgAlign(h.length), buffer.size()));
    if (h.level != SOL_SOCKET) continue;  // for another layer
    switch (h.type) {
      case SCM_RIGHTS: {
        const size_t count = data.size() / sizeof(int32_t);
        if (out.rights.size() + count > UnixSocket::kMaxRights) return kEINVAL;
        TRY(CheckInFlight(t, count));
        for (size_t i = 0; i < count; ++i) {
          int32_t fd;
          memcpy(&fd, data.data() + i * sizeof fd, sizeof fd);
          out.rights.push_back(TRY(MakeRight(t, fd)));
        }
        break;
      }
      case SCM_CREDENTIALS: {
        abi::Ucred c;
        if (data.size() != sizeof c) return kEINVAL;
        memcpy(&c, data.data(), sizeof c);
        out.credentials = TRY(CheckCredentials(t, c));
        break;
      }
      default:
        return kEINVAL;
    }
  }
  return out;
}

std::string BuildControl(Task& t, IncomingControl& control, size_t room, int flags, int* message_flags) {
  std::string out;
  if (control.want_credentials && !AppendWhole(out, room, SCM_CREDENTIALS, EncodeUcred(t, control.credentials))) {
    *message_flags |= MSG_CTRUNC;
  }
  auto install = [&](RefPtr<File> file, bool cloexec) -> int32_t {
    Result<int> fd = t.InstallFd(std::move(file), cloexec);
    return fd.ok() ? *fd : -1;
  };
  if (control.want_pidfd) {
    int32_t fd = -1;
    const bool has_room = room >= out.size() && room - out.size() >= sizeof(abi::Cmsghdr) + sizeof fd;
    auto* pid = dynamic_cast<Pid*>(control.credentials.process.get());
    if (pid != nullptr && has_room) {
      Result<RefPtr<PidFile>> file = PidFile::Create(t.kernel(), RefPtr<Pid>(pid), 0);
      if (file.ok()) fd = install(std::move(*file), true);
    }
    if (!AppendWhole(out, room, abi::kScmPidfd, {reinterpret_cast<const char*>(&fd), sizeof fd})) {
      *message_flags |= MSG_CTRUNC;
    }
  }
  if (!control.rights.empty()) {
    Pad(out, room);
    const size_t left = room - out.size();
    const size_t fit = left > sizeof(abi::Cmsghdr) ? (left - sizeof(abi::Cmsghdr)) / sizeof(int32_t) : 0;
    std::string fds;
    for (size_t i = 0; i < control.rights.size() && i < fit; ++i) {
      auto* in_flight = static_cast<InFlightFile*>(control.rights[i].object.get());
      int32_t fd = install(in_flight->file(), (flags & MSG_CMSG_CLOEXEC) != 0);
      if (fd < 0) break;
      fds.append(reinterpret_cast<const char*>(&fd), sizeof fd);
    }
    if (fds.size() / sizeof(int32_t) < control.rights.size()) *message_flags |= MSG_CTRUNC;
    if (!fds.empty()) Append(out, SOL_SOCKET, SCM_RIGHTS, fds);
    control.rights.clear();
  }
  Pad(out, room);
  return out;
}

}  // namespace moat
