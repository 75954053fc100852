// Lookups that are answered ahead: how many round trips they take, and that they never tell anything stale.
#include <dirent.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <atomic>
#include <set>

#include "fs/hostfs/directory_scan.h"
#include "fs/hostfs/host_filesystem.h"
#include "fs/overlay/vfs_for_test.h"
#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

class ReadAheadTest : public testing::Test {
 protected:
  explicit ReadAheadTest(bool read_only = false) : gofer_(Mounts(tree_, read_only)) {
    HostFs::Options options;
    options.read_only = read_only;
    fs_ = HostFs::Create(gofer_.client_ref(), 0, options).value();
    vfs_ = std::make_unique<VfsForTest>(fs_);
  }
  ~ReadAheadTest() override {
    vfs_.reset();
    fs_.reset();
  }
  static std::vector<GoferMount> Mounts(const TempTree& tree, bool read_only) {
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(tree.path(), read_only));
    return mounts;
  }
  VfsForTest& vfs() { return *vfs_; }
  uint64_t RoundTrips() { return gofer_.client().round_trips(); }

  // The names of a directory in the order that the guest sees them in.
  std::vector<std::string> List(std::string_view path) {
    struct Sink final : DirEntrySink {
      bool Add(std::string_view name, uint64_t, uint8_t, int64_t) override {
        if (name != "." && name != "..") names.emplace_back(name);
        return true;
      }
      std::vector<std::string> names;
    } sink;
    RefPtr<File> dir = vfs().Open(path, O_RDONLY | O_DIRECTORY).value();
    EXPECT_TRUE(dir->ReadDir(vfs().ctx(), sink).ok());
    return sink.names;
  }
  std::string Name(int i) { return "file" + std::to_string(i); }
  void MakeFiles(int n) {
    for (int i = 0; i < n; ++i) tree_.Write(Name(i), std::string(i % 50, 'x'));
  }
  void ForgetDentries() { vfs().Resolve("/")->dentry->InvalidateChildren(); }
  // What the guest sees of `name` is what the host has.
  void Compare(const std::string& name) {
    struct stat host;
    Result<Kstat> guest = vfs().Stat("/" + name);
    if (lstat((tree_ / name).c_str(), &host) != 0) {
      EXPECT_EQ(kENOENT, guest.error()) << name;
      return;
    }
    ASSERT_TRUE(guest.ok()) << name;
    EXPECT_EQ(host.st_ino, guest->ino) << name;
    EXPECT_EQ(host.st_mode, guest->mode) << name;
    EXPECT_EQ(host.st_nlink, guest->nlink) << name;
    if (!S_ISDIR(host.st_mode)) {
      EXPECT_EQ(static_cast<uint64_t>(host.st_size), guest->size) << name;
    }
  }

  TempTree tree_;
  GoferForTest gofer_;
  RefPtr<HostFs> fs_;
  std::unique_ptr<VfsForTest> vfs_;
};

TEST_F(ReadAheadTest, InTheOrderOfTheListing) {
  MakeFiles(500);
  std::vector<std::string> names = List("/");
  uint64_t before = RoundTrips();
  for (const std::string& name : names) Compare(name);
  EXPECT_LE(RoundTrips() - before, 13u);
  EXPECT_EQ(0u, fs_->read_ahead().waiting_fds());  // nobody opened anything
}

TEST_F(ReadAheadTest, InTheOrderOfTheAlphabetWithoutAListing) {
  MakeFiles(500);
  std::set<std::string> names;
  for (int i = 0; i < 500; ++i) names.insert(Name(i));
  uint64_t before = RoundTrips();
  for (const std::string& name : names) Compare(name);
  EXPECT_LE(RoundTrips() - before, 60u);
}

TEST_F(ReadAheadTest, SmallDirectoriesOfATree) {
  constexpr int kDirs = 60, kFiles = 20;
  for (int d = 0; d < kDirs; ++d) {
    std::filesystem::create_directory(tree_ / ("d" + std::to_string(d)));
    for (int i = 0; i < kFiles; ++i) tree_.Write("d" + std::to_string(d) + "/" + Name(i), "");
  }
  uint64_t before = RoundTrips();
  for (const std::string& dir : List("/")) {
    for (const std::string& name : List("/" + dir)) EXPECT_TRUE(vfs().Stat("/" + dir + "/" + name).ok());
  }
  // One lookup of all its files each, once it is known how these are read: the listing is here already.
  EXPECT_LE(RoundTrips() - before, kDirs + 40u);
}

TEST_F(ReadAheadTest, DirectoriesOnly) {
  for (int i = 0; i < 400; ++i) {
    if (i % 8 == 0) std::filesystem::create_directory(tree_ / Name(i));
    if (i % 8 != 0) tree_.Write(Name(i), "");
  }
  std::vector<VfsForTest::Listed> listed = vfs().List("/").value();
  std::set<std::string> directories;
  for (const auto& e : listed) {
    if (e.type == DT_DIR) directories.insert(e.name);
  }
  uint64_t before = RoundTrips();
  for (const std::string& name : List("/")) {
    if (directories.contains(name)) Compare(name);
  }
  EXPECT_LE(RoundTrips() - before, 6u);
}

TEST_F(ReadAheadTest, NamesThatAreNotListedAreNotThere) {
  MakeFiles(20);
  List("/");
  EXPECT_TRUE(vfs().Stat("/" + Name(3)).ok());
  uint64_t before = RoundTrips();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(kENOENT, vfs().Stat("/none" + std::to_string(i)).error());
  EXPECT_EQ(kENOENT, vfs().Stat("/no/such/path").error());
  EXPECT_EQ(0u, RoundTrips() - before);
  // Not any more.
  ASSERT_TRUE(vfs().Write("/none200", "now").ok());
  ASSERT_TRUE(vfs().Rename("/none200", "/none201").ok());
  ASSERT_TRUE(vfs().Symlink("none201", "/none202").ok());
  ASSERT_TRUE(vfs().Mkdir("/none203").ok());
  ASSERT_TRUE(vfs().Link("/none201", "/none204").ok());
  ForgetDentries();
  for (int i = 200; i < 206; ++i) Compare("none" + std::to_string(i));
  EXPECT_EQ("now", vfs().Read("/none202").value());
}

TEST_F(ReadAheadTest, NamesThatChangeOnTheWay) {
  MakeFiles(300);
  std::vector<std::string> names = List("/");
  for (size_t i = 0; i < names.size(); ++i) {
    Compare(names[i]);
    if (i % 10 != 0 || i + 9 >= names.size()) continue;
    // All of them are asked for already.
    std::string removed = "/" + names[i + 2], renamed = "/" + names[i + 4], replaced = "/" + names[i + 6];
    ASSERT_TRUE(vfs().Unlink(removed).ok());
    ASSERT_TRUE(vfs().Rename(renamed, replaced).ok());
    if (i % 20 == 0) {
      ASSERT_TRUE(vfs().Mkdir(removed).ok());
    }
    if (i % 30 == 0) {
      ASSERT_TRUE(vfs().Rename("/" + names[i + 8], "/" + names[i + 9], RENAME_EXCHANGE).ok());
    }
    ForgetDentries();
  }
  for (const std::string& name : names) Compare(name);
}

TEST_F(ReadAheadTest, ManyChangesMakeTheListingUseless) {
  MakeFiles(100);
  List("/");
  for (int i = 0; i < 1100; ++i) ASSERT_TRUE(vfs().Mkdir("/new" + std::to_string(i)).ok());
  ForgetDentries();
  for (int i = 0; i < 1101; i += 50) Compare("new" + std::to_string(i));
}

TEST_F(ReadAheadTest, AFileThatWasChangedByAnotherName) {
  MakeFiles(40);
  for (int i = 0; i < 40; ++i) ASSERT_EQ(0, link((tree_ / Name(i)).c_str(), (tree_ / ("link" + Name(i))).c_str()));
  std::vector<std::string> names = List("/");
  for (size_t i = 0; i < names.size(); ++i) {
    Compare(names[i]);
    // Changed, and then only the answers of before are left that know it.
    int number =
        atoi(names[(i + 1) % names.size()].c_str() + names[(i + 1) % names.size()].find_first_of("0123456789"));
    std::string other = names[(i + 1) % names.size()][0] == 'l' ? Name(number) : "link" + Name(number);
    ASSERT_TRUE(vfs().Truncate("/" + other, 1000 + i).ok());
    ForgetDentries();
  }
  for (const std::string& name : names) Compare(name);
}

TEST_F(ReadAheadTest, SymlinksHaveTheirTargets) {
  for (int i = 0; i < 100; ++i) std::filesystem::create_symlink("target" + std::to_string(i), tree_ / Name(i));
  for (const std::string& name : List("/")) {
    EXPECT_EQ("target" + name.substr(4), vfs().Readlink("/" + name).value());
  }
}

TEST_F(ReadAheadTest, FilesThatAreReadComeWithDescriptors) {
  MakeFiles(500);
  std::vector<std::string> names = List("/");
  uint64_t before = RoundTrips();
  size_t descriptors = OpenDescriptors();
  for (size_t i = 0; i < names.size(); ++i) {
    int number = atoi(names[i].c_str() + 4);
    ASSERT_EQ(std::string(number % 50, 'x'), vfs().Read("/" + names[i]).value()) << names[i];
    if (i % 100 == 99) {
      EXPECT_LE(fs_->read_ahead().waiting_fds(), ReadAheadPolicy::kMaxWaitingFds);
    }
  }
  EXPECT_LE(RoundTrips() - before, 25u);
  // The gofer's handles are this process's descriptors too.
  EXPECT_LE(OpenDescriptors() - descriptors, 2 * names.size() + 200);
  EXPECT_EQ(0u, fs_->read_ahead().waiting_fds());
}

TEST_F(ReadAheadTest, WhatNobodyWantsIsGivenBack) {
  constexpr int kDirs = 24, kFiles = 60;
  for (int d = 0; d < kDirs; ++d) {
    std::filesystem::create_directory(tree_ / ("d" + std::to_string(d)));
    for (int i = 0; i < kFiles; ++i) tree_.Write("d" + std::to_string(d) + "/" + Name(i), "");
  }
  // Reads on half way through each directory.
  size_t read = 0, descriptors = OpenDescriptors();
  for (int d = 0; d < kDirs; ++d) {
    std::string dir = "/d" + std::to_string(d) + "/";
    std::vector<std::string> names = List(dir);
    for (int i = 0; i < kFiles / 2; ++i, ++read) ASSERT_TRUE(vfs().Read(dir + names[i]).ok());
    ASSERT_LE(fs_->read_ahead().waiting_fds(), ReadAheadPolicy::kMaxWaitingFds);
  }
  gofer_.client().FlushForgotten();
  size_t waiting = HostFs::kMaxDirsWithAnswers * DirectoryScan::kMaxKept;
  EXPECT_LE(OpenDescriptors() - descriptors, kDirs + read + HostFs::kMaxIdleFiles + waiting + 300);
  ForgetDentries();
  gofer_.client().FlushForgotten();
  EXPECT_EQ(0u, fs_->read_ahead().waiting_fds());
  EXPECT_LE(OpenDescriptors(), descriptors + 20);
}

TEST_F(ReadAheadTest, ListingsThatCameAheadAreNotStale) {
  constexpr int kDirs = 60;
  for (int d = 0; d < kDirs; ++d) std::filesystem::create_directory(tree_ / Name(d));
  std::vector<std::string> names = List("/");
  for (int d = 0; d < kDirs; ++d) {
    EXPECT_EQ(d < 3 || d % 3 != 0 ? "" : "new", vfs().Names("/" + names[d])) << d;
    // One further on that is there already, known, changed and forgotten again.
    if (d % 3 == 0 && d + 3 < kDirs) {
      ASSERT_TRUE(vfs().Mkdir("/" + names[d + 3] + "/new").ok());
    }
    ForgetDentries();
  }
}

TEST_F(ReadAheadTest, TwoThreadsAndAThirdThatChangesNames) {
  MakeFiles(150);
  std::filesystem::create_directory(tree_ / "stable");
  for (int i = 0; i < 150; ++i) tree_.Write("stable/" + Name(i), std::string(i % 50, 'x'));
  std::atomic<bool> stop{false};
  auto reader = [&](bool backwards) {
    for (int round = 0; round < 4; ++round) {
      for (std::string dir : {"/stable/", "/"}) {
        std::vector<std::string> names = List(dir);
        if (backwards) std::sort(names.begin(), names.end());
        for (const std::string& name : names) {
          Result<Kstat> st = vfs().Stat(dir + name);
          if (dir == "/") continue;  // may be anything
          ASSERT_TRUE(st.ok()) << name;
          ASSERT_EQ(static_cast<uint64_t>(atoi(name.c_str() + 4) % 50), st->size) << name;
          if (round % 2 == 0) {
            ASSERT_TRUE(vfs().Read(dir + name).ok());
          }
        }
      }
      vfs().Resolve("/stable")->dentry->InvalidateChildren();
    }
  };
  std::thread changer([&] {
    for (int i = 0; !stop; i = (i + 7) % 150) {
      ASSERT_TRUE(vfs().Rename("/" + Name(i), "/moved").ok());
      ASSERT_TRUE(vfs().Stat("/moved").ok());
      ASSERT_EQ(kENOENT, vfs().Stat("/" + Name(i)).error());
      ASSERT_TRUE(vfs().Rename("/moved", "/" + Name(i)).ok());
      ASSERT_TRUE(vfs().Stat("/" + Name(i)).ok());
    }
  });
  std::thread forwards(reader, false), backwards(reader, true);
  forwards.join();
  backwards.join();
  stop = true;
  changer.join();
  ForgetDentries();
  for (int i = 0; i < 150; ++i) Compare(Name(i));
}

}  // namespace
}  // namespace moat
