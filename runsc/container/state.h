// A container's place under --root: <root>/<id>/ with state.json, config.json (as it was at create: later changes of
// the bundle have no effect), exit (once it ended) and the socket "control". The folders are 0700.
// Locked by flock(2) on the container's folder; files are replaced as a whole (temporary file and rename).
#ifndef MOAT_RUNSC_CONTAINER_STATE_H_
#define MOAT_RUNSC_CONTAINER_STATE_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/scoped_fd.h"
#include "runsc/sandbox/channel.h"

namespace moat {

struct ContainerRecord {
  std::string id, bundle, rootfs, created, owner;
  std::map<std::string, std::string> annotations;
  pid_t pid = 0;                // of the supervisor
  uint64_t pid_start_time = 0;  // field 22 of /proc/<pid>/stat: the pid may be another process's by now
  void SetProcess(pid_t supervisor);
  std::string status;  // "created" or "running" as of the last command; see StatusNow
};

// "invalid container ID format" unless [A-Za-z0-9_+.-]+ and neither "." nor "..".
absl::Status CheckContainerId(const std::string& id);

class StateDir {
 public:
  // Makes the folder (and the root) and locks it. "container with given ID already exists".
  static absl::StatusOr<StateDir> Create(const std::string& root, const std::string& id);
  // Locks it. "container does not exist" (with the id).
  static absl::StatusOr<StateDir> Open(const std::string& root, const std::string& id);
  // Does not lock: for commands that only look or signal, which hooks of a start that is under way may call, too. What
  // they read is whole, as files are replaced.
  static absl::StatusOr<StateDir> Peek(const std::string& root, const std::string& id);
  // Ids under `root`, sorted.
  static std::vector<std::string> List(const std::string& root);

  absl::StatusOr<ContainerRecord> Load() const;
  absl::Status Save(const ContainerRecord& record) const;
  absl::StatusOr<std::string> ReadFile(const std::string& name) const;
  absl::Status WriteFile(const std::string& name, const std::string& text) const;
  // The wait status that the supervisor left.
  std::optional<int> ExitStatus() const;
  absl::Status Remove();

  // The control socket: a short path to it whatever --root is.
  absl::StatusOr<ScopedFd> Listen() const;
  absl::StatusOr<Channel> Connect() const;
  // Waits for other commands on this container to end.
  absl::Status Lock();
  void Unlock();
  // In a forked process: a lock belongs to the open description that both share, so this takes one of its own.
  void DetachFromParent();
  int fd() const { return dir_.get(); }
  const std::string& id() const { return id_; }

 private:
  StateDir(std::string root, std::string id, ScopedFd dir)
      : root_(std::move(root)), id_(std::move(id)), dir_(std::move(dir)) {}
  std::string root_, id_;
  ScopedFd dir_;
};

// Field 22 of /proc/<pid>/stat; 0 when the process is gone or a zombie.
uint64_t ProcessStartTime(pid_t pid);
// "created", "running" or "stopped".
std::string StatusNow(const ContainerRecord& record);
// The OCI state document.
std::string StateJson(const ContainerRecord& record, const std::string& status);

// A decimal pid without a newline, by temporary file and rename.
absl::Status WritePidFile(const std::string& path, pid_t pid);
// "9", "KILL" or "SIGKILL", realtime ones as "RTMIN+1".
absl::StatusOr<int> ParseSignal(const std::string& text);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_STATE_H_
