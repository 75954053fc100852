// Regular files that a lookup opens for reading by their names, and all that must not be opened so.
#include <linux/fs.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class OpenByNameTest : public testing::Test {
 protected:
  OpenByNameTest() : gofer_(Mounts(tree_)) { root_ = client().Attach(0).value().handle; }
  static std::vector<GoferMount> Mounts(const TempTree& tree) {
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(tree.path()));
    return mounts;
  }
  GoferClient& client() { return gofer_.client(); }
  GoferClient::Found LookUp(std::string_view name) {
    return std::move(client().LookUp(root_, std::span(&name, 1), gofer::kDonate).value()[0]);
  }
  // Whether somebody has the FIFO open for reading: only then can a writer open it without waiting.
  bool HasReader(const char* name) {
    ScopedFd writer(open((tree_ / name).c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW));
    struct stat is;
    return writer.valid() && fstat(writer.get(), &is) == 0 && S_ISFIFO(is.st_mode);
  }

  TempTree tree_;
  GoferForTest gofer_;
  gofer::Handle root_ = 0;
};

TEST_F(OpenByNameTest, TheFileOutlivesItsHandleAndItsName) {
  tree_.Write("file", "text");
  GoferClient::Found found = LookUp("file");
  ASSERT_TRUE(found.fd.valid());
  ASSERT_TRUE(client().Unlink(root_, "file", found.handle, false).ok());
  client().Forget(found.handle);
  EXPECT_EQ(kENOENT, LookUp("file").error);  // and the handle is given back with that
  char buffer[8];
  EXPECT_EQ(4, pread(found.fd.get(), buffer, sizeof buffer, 0));
  EXPECT_EQ(O_RDONLY, fcntl(found.fd.get(), F_GETFL) & O_ACCMODE);
}

TEST_F(OpenByNameTest, WhatItsHandleCanDoStays) {
  tree_.Write("file", "text");
  const gofer::Handle file = LookUp("file").handle;
  Result<GoferClient::Opened> opened = client().Open(file, O_RDWR);
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(5, pwrite(opened->fd.get(), "other", 5, 0));
  EXPECT_EQ(5u, client().GetAttr(file)->size);
  ASSERT_TRUE(client().Link(root_, "link", file).ok());
  EXPECT_EQ("other", tree_.Read("link"));
  EXPECT_EQ(2u, client().GetAttr(file)->nlink);
}

TEST_F(OpenByNameTest, AFifoIsNotOpened) {
  ASSERT_EQ(0, mkfifo((tree_ / "fifo").c_str(), 0644));
  std::atomic<bool> stop{false};
  std::thread looks([&] {
    while (!stop) {
      GoferClient::Found found = LookUp("fifo");
      EXPECT_TRUE(S_ISFIFO(found.attr.mode));
      EXPECT_FALSE(found.fd.valid());
      client().Forget(found.handle);
    }
  });
  for (int i = 0; i < 5000; ++i) EXPECT_FALSE(HasReader("fifo"));
  stop = true;
  looks.join();
}

// A sentry that was taken over moves things while the gofer looks at them.
TEST_F(OpenByNameTest, NorOneThatIsMovedThereMeanwhile) {
  ASSERT_EQ(0, mkfifo((tree_ / "fifo").c_str(), 0644));
  tree_.Write("file", "text");
  std::atomic<bool> stop{false};
  std::thread moves([&] {
    while (!stop) {
      EXPECT_TRUE(client().Rename(root_, "fifo", root_, "file", RENAME_EXCHANGE).ok());
    }
  });
  std::thread looks([&] {
    while (!stop) {
      GoferClient::Found found = LookUp("file");
      EXPECT_EQ(found.fd.valid(), S_ISREG(found.attr.mode));
      client().Forget(found.handle);
    }
  });
  for (int i = 0; i < 20'000; ++i) EXPECT_FALSE(HasReader("fifo") || HasReader("file"));
  stop = true;
  moves.join();
  looks.join();
}

TEST_F(OpenByNameTest, LinksAndDirectoriesAreLookedAtOnly) {
  tree_.Write("file", "text");
  std::filesystem::create_symlink("file", tree_ / "link");
  std::filesystem::create_directory(tree_ / "dir");
  EXPECT_TRUE(S_ISLNK(LookUp("link").attr.mode));
  EXPECT_TRUE(S_ISDIR(LookUp("dir").attr.mode));
  for (const char* name : {"link", "dir"}) EXPECT_FALSE(LookUp(name).fd.valid()) << name;
}

}  // namespace
}  // namespace moat
