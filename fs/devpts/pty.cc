#include "fs/devpts/pty.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <algorithm>
#include <csignal>

namespace moat {
namespace {

constexpr size_t kCopyChunk = 4096;

// An open slave.
class SlaveFile final : public File {
 public:
  SlaveFile(VfsPath path, OpenFlags flags, RefPtr<Pty> pty, uint64_t generation)
      : File(std::move(path), flags), pty_(std::move(pty)), generation_(generation) {}
  ~SlaveFile() override { pty_->CloseSlave(); }

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override {
    return pty_->SlaveRead(ctx, dst, generation_, nonblocking());
  }
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override {
    return pty_->SlaveWrite(ctx, src, generation_);
  }
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kESPIPE; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kESPIPE; }
  Result<int64_t> Seek(const VfsContext&, int64_t, int) override { return kESPIPE; }
  EventMask Poll(EventMask interest) override { return pty_->PollSlave(interest, generation_); }
  WaitQueue& wait_queue() override { return pty_->slave_queue(); }
  EventMask AsyncEvents() const override { return kAsyncInput | kAsyncOutput; }
  Tty* tty() const override { return pty_.get(); }
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override {
    return pty_->SlaveIoctl(ctx, memory, generation_, cmd, arg);
  }

 private:
  const RefPtr<Pty> pty_;
  const uint64_t generation_;
};

}  // namespace

void Pty::ReadTimer::OnTimer() {
  {
    MutexLock lock(pty_.mu_);
    pty_.read_timed_out_ = true;
  }
  pty_.slave_queue_.Notify(EPOLLIN);
}

void Pty::Apply(const LineEffects& fx) {
  EventMask master = 0, slave = 0;
  if (fx.screen_ready) master |= EPOLLIN | EPOLLRDNORM | kAsyncInput;
  if (fx.keyboard_room) master |= EPOLLOUT | EPOLLWRNORM;
  if (fx.input_ready) slave |= EPOLLIN | EPOLLRDNORM | kAsyncInput;
  if (fx.output_room) slave |= EPOLLOUT | EPOLLWRNORM;
  if (fx.keyboard_room && master_wants_room_.exchange(false, std::memory_order_relaxed)) master |= kAsyncOutput;
  if (fx.output_room && slave_wants_room_.exchange(false, std::memory_order_relaxed)) slave |= kAsyncOutput;
  if (fx.packet != 0) {
    MutexLock lock(mu_);
    if (packet_mode_) {
      if (fx.packet & TIOCPKT_STOP) packet_events_ &= ~TIOCPKT_START;
      if (fx.packet & TIOCPKT_START) packet_events_ &= ~TIOCPKT_STOP;
      packet_events_ |= fx.packet;
      master |= EPOLLPRI | EPOLLIN;
    }
  }
  if (master != 0) master_queue_.Notify(master);
  if (slave != 0) slave_queue_.Notify(slave);
  if (fx.signals == 0 || tty_job_control == nullptr) return;
  for (int signo : {SIGINT, SIGQUIT, SIGTSTP}) {
    if (fx.signals & (1u << signo)) tty_job_control->SignalForeground(*this, signo);
  }
}

// --- open and close ---

Result<RefPtr<File>> Pty::OpenSlave(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  uint64_t generation;
  {
    MutexLock lock(mu_);
    if (locked_ || master_closed_) return kEIO;
    if (exclusive_ && slaves_ > 0 && !ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEBUSY;
    ++slaves_;
    slave_opened_ = true;
    other_closed_ = false;
    generation = generation_;
  }
  RefPtr<File> file = MakeRef<SlaveFile>(path, flags, RefPtr<Pty>(this), generation);
  if (!(flags.flags & O_NOCTTY) && !flags.path_only() && tty_job_control != nullptr)
    tty_job_control->Opened(ctx, *this);
  return file;
}

Result<RefPtr<File>> Pty::OpenAgain(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  uint64_t generation;
  {
    MutexLock lock(mu_);
    if (master_closed_) return kEIO;
    ++slaves_;
    slave_opened_ = true;
    other_closed_ = false;
    generation = generation_;
  }
  return RefPtr<File>(MakeRef<SlaveFile>(path, flags, RefPtr<Pty>(this), generation));
}

void Pty::CloseSlave() {
  {
    MutexLock lock(mu_);
    if (--slaves_ > 0) return;
    other_closed_ = true;
    exclusive_ = false;
  }
  master_queue_.Notify(EPOLLIN | EPOLLOUT | EPOLLHUP);
}

void Pty::CloseMaster() {
  {
    MutexLock lock(mu_);
    master_closed_ = true;
  }
  Hangup();
  if (tty_job_control != nullptr) tty_job_control->HungUp(*this);
}

void Pty::Hangup() {
  {
    MutexLock lock(mu_);
    ++generation_;
    LineEffects fx;
    line_.FlushInput(fx);
  }
  slave_queue_.Notify(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLWRNORM);
  master_queue_.Notify(EPOLLIN | EPOLLOUT | EPOLLHUP);
}

// --- master ---

Result<size_t> Pty::MasterRead(IoDest& dst) {
  if (dst.remaining() == 0) return size_t{0};
  std::string bytes;
  LineEffects fx;
  uint8_t events = 0;
  bool packet;
  {
    MutexLock lock(mu_);
    packet = packet_mode_;
    if (packet && packet_events_ != 0) {
      events = std::exchange(packet_events_, 0);
    } else if (line_.HasScreen()) {
      line_.TakeScreen(std::min(dst.remaining() - (packet ? 1 : 0), 4 * kCopyChunk), bytes, fx);
    } else {
      return other_closed_ ? kEIO : kEAGAIN;
    }
  }
  Apply(fx);
  size_t total = 0;
  if (packet) {
    total = TRY(dst.Put(&events, 1));
    if (events != 0 || bytes.empty()) return total;
  }
  Result<size_t> put = dst.Put(bytes.data(), bytes.size());
  size_t done = put.ok() ? *put : 0;
  if (done < bytes.size()) {
    MutexLock lock(mu_);
    line_.UntakeScreen(std::string_view(bytes).substr(done));
  }
  if (!put.ok() && total == 0) return put;
  return total + done;
}

Result<size_t> Pty::MasterWrite(IoSource& src) {
  size_t total = 0;
  while (src.remaining() > 0) {
    {
      MutexLock lock(mu_);
      if (other_closed_ && slave_opened_ && slaves_ == 0 && master_closed_) return kEIO;
      if (!line_.KeyboardHasRoom()) break;
    }
    char chunk[kCopyChunk];
    Result<size_t> took = src.Take(chunk, std::min(src.remaining(), sizeof chunk));
    if (!took.ok()) return total != 0 ? Result<size_t>(total) : took;
    LineEffects fx;
    size_t n;
    {
      MutexLock lock(mu_);
      n = line_.Input({chunk, *took}, fx);
    }
    Apply(fx);
    if (n < *took) src.Rewind(*took - n);
    total += n;
    if (n < *took || *took < sizeof chunk) break;
  }
  if (src.remaining() > 0) master_wants_room_.store(true, std::memory_order_relaxed);
  if (total == 0 && src.remaining() > 0) return kEAGAIN;
  return total;
}

EventMask Pty::PollMaster(EventMask interest) {
  MutexLock lock(mu_);
  EventMask ready = 0;
  if (line_.HasScreen()) ready |= EPOLLIN | EPOLLRDNORM;
  if (packet_mode_ && packet_events_ != 0) ready |= EPOLLIN | EPOLLRDNORM | EPOLLPRI;
  if (line_.KeyboardHasRoom()) ready |= EPOLLOUT | EPOLLWRNORM;
  if (other_closed_) ready |= EPOLLHUP;
  return ready & (interest | EPOLLERR | EPOLLHUP);
}

// --- slave ---

Result<size_t> Pty::SlaveRead(const VfsContext& ctx, IoDest& dst, uint64_t generation, bool nonblocking) {
  if (HungUp(generation)) return size_t{0};
  if (tty_job_control != nullptr) TRY(tty_job_control->CheckRead(ctx, *this));
  if (dst.remaining() == 0) return size_t{0};
  std::string bytes;
  LineEffects fx;
  bool canonical;
  {
    MutexLock lock(mu_);
    if (generation != generation_) return size_t{0};
    canonical = line_.canonical();
    const uint8_t vmin = line_.termios().c_cc[VMIN], vtime = line_.termios().c_cc[VTIME];
    bool complete = line_.CanRead(dst.remaining(), nonblocking);
    if (!canonical && vtime != 0 && !nonblocking) {
      // VMIN > 0: the timer runs from the first byte; VMIN == 0: from the read.
      complete = line_.CanRead(dst.remaining(), vmin == 0);
      if (!complete && std::exchange(read_timed_out_, false)) {
        complete = true;
      } else if (!complete && (vmin == 0 || line_.HasInput()) && read_timer_.deadline() == kNoDeadline) {
        read_timer_.Arm(DeadlineAfter(vtime * (kNanosPerSec / 10)));
      }
      if (complete) {
        read_timer_.Disarm();
        read_timed_out_ = false;
      }
    }
    if (!complete) {
      if (!canonical && nonblocking && vmin == 0 && vtime == 0) return size_t{0};
      return kEAGAIN;
    }
    line_.Read(dst.remaining(), bytes, fx);
  }
  Apply(fx);
  if (bytes.empty()) return size_t{0};
  Result<size_t> put = dst.Put(bytes.data(), bytes.size());
  size_t done = put.ok() ? *put : 0;
  if (done < bytes.size()) {
    MutexLock lock(mu_);
    line_.Unread(std::string_view(bytes).substr(done), canonical);
  }
  return put;
}

Result<size_t> Pty::SlaveWrite(const VfsContext& ctx, IoSource& src, uint64_t generation) {
  bool tostop;
  {
    MutexLock lock(mu_);
    if (generation != generation_) return kEIO;
    tostop = line_.Local(TOSTOP);
  }
  if (tostop && tty_job_control != nullptr) TRY(tty_job_control->CheckChange(ctx, *this));
  size_t total = 0;
  while (src.remaining() > 0) {
    {
      MutexLock lock(mu_);
      if (generation != generation_) return total != 0 ? Result<size_t>(total) : Result<size_t>(kEIO);
      if (!line_.OutputHasRoom()) break;
    }
    char chunk[kCopyChunk];
    Result<size_t> took = src.Take(chunk, std::min(src.remaining(), sizeof chunk));
    if (!took.ok()) return total != 0 ? Result<size_t>(total) : took;
    LineEffects fx;
    size_t n;
    {
      MutexLock lock(mu_);
      n = line_.Output({chunk, *took}, fx);
    }
    Apply(fx);
    total += n;
    if (n < *took) {
      src.Rewind(*took - n);
      break;
    }
    if (*took < sizeof chunk) break;
  }
  if (src.remaining() > 0) slave_wants_room_.store(true, std::memory_order_relaxed);
  if (total == 0 && src.remaining() > 0) return kEAGAIN;
  return total;
}

EventMask Pty::PollSlave(EventMask interest, uint64_t generation) {
  MutexLock lock(mu_);
  EventMask ready = 0;
  if (generation != generation_) {
    ready = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLWRNORM;
  } else {
    if (line_.PollReadable()) ready |= EPOLLIN | EPOLLRDNORM;
    if (line_.OutputHasRoom()) ready |= EPOLLOUT | EPOLLWRNORM;
  }
  return ready & (interest | EPOLLERR | EPOLLHUP);
}

}  // namespace moat
