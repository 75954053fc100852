// A gofer inside of the test process, serving a fresh directory, and a client of it.
#ifndef MOAT_RUNSC_GOFER_GOFER_FOR_TEST_H_
#define MOAT_RUNSC_GOFER_GOFER_FOR_TEST_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <string>
#include <thread>

#include "fs/hostfs/gofer_client.h"
#include "runsc/gofer/gofer.h"

namespace moat {

class TempTree {
 public:
  TempTree() {
    char name[] = "/tmp/moat-gofer-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TempTree() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }
  void Write(std::string_view name, std::string_view contents) const {
    ScopedFd fd(open((*this / name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
    ASSERT_EQ(static_cast<ssize_t>(contents.size()), write(fd.get(), contents.data(), contents.size()));
  }
  std::string Read(std::string_view name) const {
    ScopedFd fd(open((*this / name).c_str(), O_RDONLY));
    std::string out(1 << 20, '\0');
    ssize_t n = read(fd.get(), out.data(), out.size());
    out.resize(n < 0 ? 0 : n);
    return out;
  }

 private:
  std::string path_;
};

class GoferForTest {
 public:
  // `mounts` are served in order; `connections` sockets lead to the client.
  explicit GoferForTest(std::vector<GoferMount> mounts, int connections = 2) {
    GoferConfig config;
    config.mounts = std::move(mounts);
    config.lock_down = false;
    std::vector<ScopedFd> client_ends;
    for (int i = 0; i < connections; ++i) {
      int ends[2];
      EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
      client_ends.emplace_back(ends[0]);
      config.connections.emplace_back(ends[1]);
    }
    thread_ = std::thread([c = std::move(config), this]() mutable { result_ = RunGofer(std::move(c)); });
    client_ = GoferClient::Create(std::move(client_ends)).value();
  }
  ~GoferForTest() {
    client_.reset();  // the sockets close and the gofer ends: whoever else refers to the client must be gone
    thread_.join();
    EXPECT_EQ(0, result_);
  }
  GoferClient& client() { return *client_; }
  RefPtr<GoferClient> client_ref() { return client_; }

 private:
  RefPtr<GoferClient> client_;
  std::thread thread_;
  int result_ = -1;
};

inline GoferMount MountOf(const std::string& path, bool read_only = false) {
  return {ScopedFd(open(path.c_str(), O_PATH | O_CLOEXEC)), read_only};
}

}  // namespace moat

#endif  // MOAT_RUNSC_GOFER_GOFER_FOR_TEST_H_
