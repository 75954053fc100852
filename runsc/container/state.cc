#include "runsc/container/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runsc/error/error.h"

namespace moat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kSocketName[] = "control";

absl::Status NotThere(const std::string& id) {
  return absl::NotFoundError(fmt::format("container \"{}\" does not exist", id));
}

absl::Status MakeRoot(const std::string& root) {
  for (size_t slash = root.find('/', 1);; slash = root.find('/', slash + 1)) {
    std::string part = root.substr(0, slash);
    if (mkdir(part.c_str(), slash == root.npos ? 0700 : 0755) != 0 && errno != EEXIST)
      return HostFailed("--root: make {}", part);
    if (slash == root.npos) return absl::OkStatus();
  }
}

// sun_path holds 108 bytes; a path through the descriptor is always short.
sockaddr_un Address(int dir) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir, kSocketName);
  return address;
}

absl::Status WriteAt(int dir, const std::string& name, const std::string& text, mode_t mode) {
  std::string temporary = fmt::format(".{}.{}", name, getpid());
  ScopedFd fd(openat(dir, temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd.valid()) return HostFailed("create {}", temporary);
  size_t done = 0;
  while (done < text.size()) {
    ssize_t n = write(fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      absl::Status s = HostFailed("write {}", name);
      unlinkat(dir, temporary.c_str(), 0);
      return s;
    }
    done += n;
  }
  if (renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) {
    absl::Status s = HostFailed("rename to {}", name);
    unlinkat(dir, temporary.c_str(), 0);
    return s;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckContainerId(const std::string& id) {
  bool ok = !id.empty() && id.size() <= 1024 && id != "." && id != "..";
  for (char c : id) ok &= isalnum(static_cast<unsigned char>(c)) || strchr("_+.-", c) != nullptr;
  if (!ok) return Invalid("invalid container ID format: \"{}\" (letters, digits and _ + - . only)", id);
  return absl::OkStatus();
}

absl::StatusOr<StateDir> StateDir::Create(const std::string& root, const std::string& id) {
  RETURN_IF_ERROR(CheckContainerId(id));
  RETURN_IF_ERROR(MakeRoot(root));
  std::string path = root + "/" + id;
  if (mkdir(path.c_str(), 0700) != 0) {
    if (errno == EEXIST) return absl::AlreadyExistsError(fmt::format("container with given ID already exists: {}", id));
    return HostFailed("make {}", path);
  }
  ScopedFd dir(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return HostFailed("open {}", path);
  StateDir state(root, id, std::move(dir));
  RETURN_IF_ERROR(state.Lock());
  return state;
}

absl::StatusOr<StateDir> StateDir::Open(const std::string& root, const std::string& id) {
  ASSIGN_OR_RETURN(StateDir state, Peek(root, id));
  RETURN_IF_ERROR(state.Lock());
  return state;
}

absl::StatusOr<StateDir> StateDir::Peek(const std::string& root, const std::string& id) {
  RETURN_IF_ERROR(CheckContainerId(id));
  std::string path = root + "/" + id;
  ScopedFd dir(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return errno == ENOENT || errno == ENOTDIR ? NotThere(id) : HostFailed("open {}", path);
  return StateDir(root, id, std::move(dir));
}

absl::Status StateDir::Lock() {
  while (flock(dir_.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return HostFailed("lock {}/{}", root_, id_);
  }
  // Removed while we waited: the name is free, or another container's.
  struct stat ours, now;
  if (fstat(dir_.get(), &ours) != 0 || stat((root_ + "/" + id_).c_str(), &now) != 0 || ours.st_ino != now.st_ino)
    return NotThere(id_);
  return absl::OkStatus();
}

void StateDir::Unlock() { flock(dir_.get(), LOCK_UN); }

void StateDir::DetachFromParent() { dir_.Reset(openat(dir_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

std::vector<std::string> StateDir::List(const std::string& root) {
  std::vector<std::string> ids;
  if (DIR* d = opendir(root.c_str()); d != nullptr) {
    while (dirent* e = readdir(d)) {
      std::string name = e->d_name;
      struct stat st;
      if (CheckContainerId(name).ok() && fstatat(dirfd(d), (name + "/state.json").c_str(), &st, 0) == 0)
        ids.push_back(name);
    }
    closedir(d);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::StatusOr<std::string> StateDir::ReadFile(const std::string& name) const {
  ScopedFd fd(openat(dir_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return HostFailed("open {}/{}/{}", root_, id_, name);
  std::string text;
  char buffer[8192];
  ssize_t n;
  while ((n = read(fd.get(), buffer, sizeof buffer)) > 0) text.append(buffer, n);
  if (n < 0) return HostFailed("read {}/{}/{}", root_, id_, name);
  return text;
}

absl::Status StateDir::WriteFile(const std::string& name, const std::string& text) const {
  return WriteAt(dir_.get(), name, text, 0600);
}

absl::StatusOr<ContainerRecord> StateDir::Load() const {
  absl::StatusOr<std::string> text = ReadFile("state.json");
  if (!text.ok()) return NotThere(id_);  // a create that is not finished
  json j = json::parse(*text, nullptr, false);
  if (!j.is_object()) return Failed("{}/{}/state.json: not valid JSON", root_, id_);
  ContainerRecord r;
  r.id = j.value("id", "");
  r.bundle = j.value("bundle", "");
  r.rootfs = j.value("rootfs", "");
  r.created = j.value("created", "");
  r.owner = j.value("owner", "");
  r.annotations = j.value("annotations", std::map<std::string, std::string>());
  r.pid = j.value("pid", 0);
  r.pid_start_time = j.value("pidStartTime", uint64_t{0});
  r.status = j.value("status", "");
  return r;
}

absl::Status StateDir::Save(const ContainerRecord& r) const {
  ordered_json j = {
      {"id", r.id},        {"bundle", r.bundle},           {"rootfs", r.rootfs}, {"created", r.created},
      {"owner", r.owner},  {"annotations", r.annotations}, {"pid", r.pid},       {"pidStartTime", r.pid_start_time},
      {"status", r.status}};
  return WriteFile("state.json", j.dump(1, ' ', false, ordered_json::error_handler_t::replace));
}

std::optional<int> StateDir::ExitStatus() const {
  absl::StatusOr<std::string> text = ReadFile("exit");
  if (!text.ok()) return std::nullopt;
  return atoi(text->c_str());
}

absl::Status StateDir::Remove() {
  if (DIR* d = fdopendir(dup(dir_.get())); d != nullptr) {
    rewinddir(d);
    while (dirent* e = readdir(d)) {
      if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlinkat(dir_.get(), e->d_name, 0);
    }
    closedir(d);
  }
  std::string path = root_ + "/" + id_;
  if (rmdir(path.c_str()) != 0 && errno != ENOENT) return HostFailed("remove {}", path);
  return absl::OkStatus();
}

absl::StatusOr<ScopedFd> StateDir::Listen() const {
  ScopedFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = Address(dir_.get());
  if (!socket_fd.valid() || bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(socket_fd.get(), 64) != 0)
    return HostFailed("make the control socket in {}/{}", root_, id_);
  return socket_fd;
}

absl::StatusOr<Channel> StateDir::Connect() const {
  ScopedFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = Address(dir_.get());
  if (!socket_fd.valid() || connect(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return HostFailed("container not running: connect to its sandbox");
  return Channel(std::move(socket_fd));
}

void ContainerRecord::SetProcess(pid_t supervisor) {
  pid = supervisor;
  pid_start_time = ProcessStartTime(supervisor);
}

uint64_t ProcessStartTime(pid_t pid) {
  if (pid <= 0) return 0;
  ScopedFd fd(open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024];
  ssize_t n = fd.valid() ? read(fd.get(), text, sizeof text - 1) : -1;
  if (n <= 0) return 0;
  text[n] = '\0';
  char* at = strrchr(text, ')');  // the name before it may hold anything
  char state = 0;
  unsigned long long start = 0;
  if (at == nullptr ||
      sscanf(at + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
             &start) != 2)
    return 0;
  return state == 'Z' || state == 'X' ? 0 : start;
}

std::string StatusNow(const ContainerRecord& r) {
  uint64_t start = ProcessStartTime(r.pid);
  return start == 0 || start != r.pid_start_time ? "stopped" : r.status;
}

std::string StateJson(const ContainerRecord& r, const std::string& status) {
  ordered_json j = {{"ociVersion", "1.2.0"}, {"id", r.id},         {"pid", status == "stopped" ? 0 : r.pid},
                    {"status", status},      {"bundle", r.bundle}, {"rootfs", r.rootfs},
                    {"created", r.created}};
  if (!r.annotations.empty()) j["annotations"] = r.annotations;
  j["owner"] = r.owner;
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  size_t slash = path.rfind('/');
  std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  ScopedFd dir(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return HostFailed("--pid-file: open {}", folder);
  absl::Status s = WriteAt(dir.get(), slash == path.npos ? path : path.substr(slash + 1), std::to_string(pid), 0644);
  return s.ok() ? s : Annotate(s, "--pid-file");
}

absl::StatusOr<int> ParseSignal(const std::string& text) {
  if (!text.empty() && text.find_first_not_of("0123456789") == text.npos) {
    int n = text.size() > 3 ? 0 : atoi(text.c_str());
    if (n >= 1 && n <= 64) return n;
    return Invalid("unknown signal \"{}\"", text);
  }
  std::string name = text;
  for (char& c : name) c = static_cast<char>(toupper(static_cast<unsigned char>(c)));
  if (name.starts_with("SIG")) name = name.substr(3);
  for (int n = 1; n < 32; ++n) {
    const char* abbreviation = sigabbrev_np(n);
    if (abbreviation != nullptr && name == abbreviation) return n;
  }
  if (name == "IOT") return SIGABRT;
  if (name == "CLD") return SIGCHLD;
  int offset = 0;
  // The kernel's own range: glibc keeps two of it.
  if (sscanf(name.c_str(), "RTMIN+%d", &offset) == 1 && offset >= 0 && offset <= 30) return 34 + offset;
  if (sscanf(name.c_str(), "RTMAX-%d", &offset) == 1 && offset >= 0 && offset <= 30) return 64 - offset;
  if (name == "RTMIN") return 34;
  if (name == "RTMAX") return 64;
  return Invalid("unknown signal \"{}\"", text);
}

}  // namespace moat
