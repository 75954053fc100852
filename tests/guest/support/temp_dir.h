// TempDir is an empty directory under $TMPDIR (or /tmp) that is removed with all it holds when the object dies.
// Small helpers write and read whole files; they report a failure to the running test.
#ifndef MOAT_TESTS_GUEST_SUPPORT_TEMP_DIR_H_
#define MOAT_TESTS_GUEST_SUPPORT_TEMP_DIR_H_

#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

#include "platform/base/scoped_fd.h"

namespace moat::guest {

class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::string& path() const { return path_; }
  // The path of an entry; it need not exist.
  std::string Join(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Makes a regular file and returns its path.
  std::string File(std::string_view name, std::string_view content = "", mode_t mode = 0644) const;
  // Makes a directory (whatever the umask) and returns its path.
  std::string Dir(std::string_view name, mode_t mode = 0755) const;
  // An open descriptor of the directory.
  ScopedFd Open() const { return ScopedFd(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

 private:
  std::string path_;
};

// Reads to the end; a failure is a test failure.
std::string ReadAll(int fd);
std::string ReadFile(const std::string& path);
// The value of "name:" in a /proc status-like file, without blanks around it; "" when there is none.
std::string ProcField(const std::string& path, std::string_view name);
// Names in a directory, sorted, without "." and "..".
std::vector<std::string> List(const std::string& path);
bool Exists(const std::string& path);

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_TEMP_DIR_H_
