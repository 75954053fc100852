// ScopedFd owns one host file descriptor. Not thread-safe; moving transfers the ownership.
#ifndef MOAT_PLATFORM_BASE_SCOPED_FD_H_
#define MOAT_PLATFORM_BASE_SCOPED_FD_H_

#include <unistd.h>

#include <utility>

namespace moat {

class ScopedFd {
 public:
  ScopedFd() = default;
  explicit ScopedFd(int fd) : fd_(fd) {}
  ScopedFd(ScopedFd&& o) noexcept : fd_(o.Release()) {}
  ScopedFd& operator=(ScopedFd&& o) noexcept {
    Reset(o.Release());
    return *this;
  }
  ~ScopedFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_SCOPED_FD_H_
