// Channel: messages between the processes of a sandbox, over an AF_UNIX stream socket: client, supervisor, sentry.
// A message is a kind, at most kMaxMessage bytes of text and at most kMaxFds descriptors. All calls block, and use
// sendmsg(2) and recvmsg(2) only, for the sentry's sake. What arrives is checked: neither end trusts the other.
// One user per direction at a time.
#ifndef MOAT_RUNSC_SANDBOX_CHANNEL_H_
#define MOAT_RUNSC_SANDBOX_CHANNEL_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat {

enum class MessageKind : uint32_t {
  // supervisor -> sentry
  kGo = 1,  // identity maps are written, go on
  kLoad,    // after kBooted: the hooks have run, load init
  kStart,   // run the container's init
  kSignal,  // number: signal for init; text "terminal": for the foreground group of its terminal
  kGround,  // number: 1 when the caller's terminal has its foreground outside of the sandbox, 0 when no more
  kClient,  // one fd: a client's connection
  // sentry -> supervisor
  kBooted,  // only with BootConfig::waits_for_hooks: mounts are made
  kReady,   // init is loaded
  kFailed,  // number: exit code; text: why. The sentry ends.
  kStarted,
  kStopped,  // number: signal; text: how many SIGCONTs came before. A process that is the caller's job stopped
  kExited,   // number: wait status of init. The sentry ends.
  // client -> sentry
  kExec,        // text: process as JSON; fds: stdio; number: ExecFlags. Later on the same connection: kSignal, kGround
  kProcesses,   // text back: "pid ppid uid comm" rows as JSON
  kSignalInit,  // number: signal; flags in text: "all"
  kPause,
  kResume,
  // sentry -> client
  kOk,
  kError,  // number: exit code, text
};

// How the client of kExec stands for the process.
enum ExecFlags : int32_t {
  kExecJob = 1,         // it stops as the process does
  kExecOrphaned = 2,    // StandIn::is_orphaned
  kExecBackground = 4,  // as kGround
  kExecLeader = 8,      // it leads the session of the terminal: a hang-up is the terminal's end
};

struct Message {
  MessageKind kind = MessageKind::kOk;
  int32_t number = 0;
  std::string text;
  std::vector<ScopedFd> fds;
};

class Channel {
 public:
  static constexpr size_t kMaxMessage = 4 << 20;
  static constexpr size_t kMaxFds = 8;

  Channel() = default;
  explicit Channel(ScopedFd socket) : socket_(std::move(socket)) {}
  // A connected pair, close-on-exec.
  static Result<std::pair<Channel, Channel>> Pair();

  bool valid() const { return socket_.valid(); }
  int fd() const { return socket_.get(); }
  ScopedFd TakeFd() { return std::move(socket_); }

  // kEPIPE when the peer is gone; never raises SIGPIPE.
  Result<void> Send(MessageKind kind, int32_t number = 0, std::string_view text = {}, std::span<const int> fds = {});
  // kEPIPE when the peer is gone, kEPROTO when it sends nonsense.
  Result<Message> Receive();

 private:
  Result<void> ReceiveExactly(void* to, size_t n);
  ScopedFd socket_;
};

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_CHANNEL_H_
