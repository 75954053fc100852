#include "tests/guest/support/temp_dir.h"

#include <dirent.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/support/syscall_result.h"

namespace moat::guest {
namespace {

int RemoveEntry(const char* path, const struct stat*, int, FTW*) { return remove(path); }

}  // namespace

TempDir::TempDir() {
  const char* base = getenv("TMPDIR");
  path_ = std::string(base != nullptr ? base : "/tmp") + "/guest-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << path_ << ": " << ErrnoName(errno);
}

TempDir::~TempDir() { nftw(path_.c_str(), RemoveEntry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

std::string TempDir::File(std::string_view name, std::string_view content, mode_t mode) const {
  std::string path = Join(name);
  ScopedFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  EXPECT_OK(fd.get()) << path;
  EXPECT_EQ(write(fd.get(), content.data(), content.size()), static_cast<ssize_t>(content.size())) << path;
  EXPECT_OK(fchmod(fd.get(), mode)) << path;
  return path;
}

std::string TempDir::Dir(std::string_view name, mode_t mode) const {
  std::string path = Join(name);
  EXPECT_OK(mkdir(path.c_str(), 0700)) << path;
  EXPECT_OK(chmod(path.c_str(), mode)) << path;
  return path;
}

std::string ReadAll(int fd) {
  std::string content;
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) content.append(buffer, n);
  EXPECT_OK(n);
  return content;
}

std::string ReadFile(const std::string& path) {
  ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_OK(fd.get()) << path;
  return fd.valid() ? ReadAll(fd.get()) : std::string();
}

std::string ProcField(const std::string& path, std::string_view name) {
  const std::string content = "\n" + ReadFile(path);
  const std::string key = "\n" + std::string(name) + ":";
  size_t start = content.find(key);
  if (start == std::string::npos) return "";
  start += key.size();
  std::string value = content.substr(start, content.find('\n', start) - start);
  value.erase(0, value.find_first_not_of(" \t"));
  value.erase(value.find_last_not_of(" \t") + 1);
  return value;
}

std::vector<std::string> List(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) {
    ADD_FAILURE() << "opendir " << path << ": " << ErrnoName(errno);
    return names;
  }
  while (dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

bool Exists(const std::string& path) {
  struct stat st;
  return lstat(path.c_str(), &st) == 0;
}

}  // namespace moat::guest
