// memfd_create(2) and file seals.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Memfd : public testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(memfd_create("name", MFD_ALLOW_SEALING | MFD_CLOEXEC));
    ASSERT_OK(fd_.get());
    ASSERT_OK(ftruncate(fd_.get(), kPage));
  }
  int fd() const { return fd_.get(); }
  int Seal(int seals) { return fcntl(fd(), F_ADD_SEALS, seals); }
  ScopedFd fd_;
};

TEST_F(Memfd, IsAnUnlinkedRegularFile) {
  struct stat st;
  ASSERT_OK(fstat(fd(), &st));
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(st.st_size, static_cast<off_t>(kPage));
}
TEST_F(Memfd, ReadsAndWrites) {
  EXPECT_EQ(pwrite(fd(), "hello", 5, 100), 5);
  char b[5];
  EXPECT_EQ(pread(fd(), b, 5, 100), 5);
  EXPECT_EQ(std::string(b, 5), "hello");
}
TEST_F(Memfd, NameInProc) {
  char b[64];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd())).c_str(), b, sizeof b);
  ASSERT_OK(n);
  EXPECT_EQ(std::string(b, n), "/memfd:name (deleted)");
}
TEST_F(Memfd, SharedMappingSeesWrites) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  ASSERT_EQ(pwrite(fd(), "x", 1, 0), 1);
  EXPECT_EQ(m.data()[0], 'x');
  m.data()[1] = 'y';
  char b[2];
  ASSERT_EQ(pread(fd(), b, 2, 0), 2);
  EXPECT_EQ(b[1], 'y');
}
TEST_F(Memfd, TwoMappingsShare) {
  const Mapping a(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd()), b(kPage, PROT_READ, MAP_SHARED, fd());
  a.data()[7] = 42;
  EXPECT_EQ(b.data()[7], 42);
}
TEST_F(Memfd, SharedAcrossFork) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  EXPECT_TRUE(PassesInChild([&] { m.data()[0] = 9; }));
  EXPECT_EQ(m.data()[0], 9);
}
TEST_F(Memfd, ReopenThroughProc) {
  const ScopedFd again(open(("/proc/self/fd/" + std::to_string(fd())).c_str(), O_RDONLY));
  ASSERT_OK(again.get());
  EXPECT_FAIL(write(again.get(), "x", 1), EBADF);
}
TEST_F(Memfd, StartsWithoutSeals) { EXPECT_EQ(fcntl(fd(), F_GET_SEALS), 0); }
TEST_F(Memfd, WithoutAllowSealingIsSealed) {
  const ScopedFd sealed(memfd_create("s", 0));
  EXPECT_EQ(fcntl(sealed.get(), F_GET_SEALS), F_SEAL_SEAL);
  EXPECT_FAIL(fcntl(sealed.get(), F_ADD_SEALS, F_SEAL_WRITE), EPERM);
}
TEST_F(Memfd, SealShrink) {
  ASSERT_OK(Seal(F_SEAL_SHRINK));
  EXPECT_FAIL(ftruncate(fd(), 0), EPERM);
  EXPECT_OK(ftruncate(fd(), 2 * kPage));
}
TEST_F(Memfd, SealGrow) {
  ASSERT_OK(Seal(F_SEAL_GROW));
  EXPECT_FAIL(ftruncate(fd(), 2 * kPage), EPERM);
  EXPECT_FAIL(pwrite(fd(), "x", 1, kPage), EPERM);
  EXPECT_FAIL(fallocate(fd(), 0, kPage, kPage), EPERM);
  EXPECT_OK(ftruncate(fd(), 0));
}
TEST_F(Memfd, SealWrite) {
  ASSERT_OK(Seal(F_SEAL_WRITE));
  EXPECT_FAIL(pwrite(fd(), "x", 1, 0), EPERM);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd(), 0), MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  const Mapping private_copy(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd());
  EXPECT_FAIL(fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage), EPERM);
}
TEST_F(Memfd, SealWriteWithWritableMapping) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  EXPECT_FAIL(Seal(F_SEAL_WRITE), EBUSY);
}
TEST_F(Memfd, SealFutureWriteKeepsOldMappings) {
  const Mapping m(kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd());
  ASSERT_OK(Seal(F_SEAL_FUTURE_WRITE));
  m.data()[0] = 'z';
  EXPECT_FAIL(pwrite(fd(), "x", 1, 0), EPERM);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd(), 0), MAP_FAILED);
}
TEST_F(Memfd, SealSealEndsIt) {
  ASSERT_OK(Seal(F_SEAL_SEAL | F_SEAL_GROW));
  EXPECT_EQ(fcntl(fd(), F_GET_SEALS), F_SEAL_SEAL | F_SEAL_GROW);
  EXPECT_FAIL(Seal(F_SEAL_SHRINK), EPERM);
}
TEST_F(Memfd, SealedMappingCannotBecomeWritable) {
  ASSERT_OK(Seal(F_SEAL_WRITE));
  const Mapping m(kPage, PROT_READ, MAP_SHARED, fd());
  EXPECT_FAIL(mprotect(m.data(), kPage, PROT_READ | PROT_WRITE), EACCES);
}
TEST_F(Memfd, SealErrors) {
  EXPECT_FAIL(Seal(0x1000), EINVAL);
  const ScopedFd read_only(open(("/proc/self/fd/" + std::to_string(fd())).c_str(), O_RDONLY));
  EXPECT_FAIL(fcntl(read_only.get(), F_ADD_SEALS, F_SEAL_WRITE), EPERM);
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(fcntl(null.get(), F_GET_SEALS), EINVAL);
}
TEST_F(Memfd, CreateErrors) {
  EXPECT_FAIL(memfd_create("x", 0x8000), EINVAL);
  EXPECT_FAIL(memfd_create(BadPointer(), 0), EFAULT);
  EXPECT_FAIL(memfd_create(std::string(250, 'n').c_str(), 0), EINVAL);
  const ScopedFd longest(memfd_create(std::string(249, 'n').c_str(), 0));
  EXPECT_OK(longest.get());
}
TEST_F(Memfd, CanBeExecuted) {
  const ScopedFd copy(memfd_create("program", 0));
  const std::string self = ReadFile(SelfPath());
  ASSERT_EQ(write(copy.get(), self.data(), self.size()), static_cast<ssize_t>(self.size()));
  const int status = StatusOf([&] {
    char* argv[] = {const_cast<char*>("x"), const_cast<char*>("--role=exit_nine"), nullptr};
    char* envp[] = {nullptr};
    fexecve(copy.get(), argv, envp);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 9);
}
MOAT_ROLE(exit_nine) { return 9; }
TEST_F(Memfd, HugePagesOfNoSize) {
  constexpr unsigned kHuge64K = 16u << 26;  // MFD_HUGE_64KB
  if (Exists("/sys/kernel/mm/hugepages/hugepages-64kB")) GTEST_SKIP() << "this machine has them";
  EXPECT_FAIL(memfd_create("x", MFD_HUGETLB | kHuge64K), ENODEV);
  EXPECT_FAIL(memfd_create("x", kHuge64K), EINVAL);
}

}  // namespace
}  // namespace moat::guest
