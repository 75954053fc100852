#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>

#include <map>
#include <random>
#include <set>

#include "fs/tmpfs/memfd.h"
#include "fs/vfs/test_world.h"

namespace moat {
namespace {

constexpr Errno kOk = Errno::kOK;

class NameSink : public DirEntrySink {
 public:
  explicit NameSink(size_t room = ~size_t{0}) : room_(room) {}
  bool Add(std::string_view name, uint64_t, uint8_t, int64_t) override {
    if (room_ == 0) return false;
    --room_;
    names.emplace_back(name);
    return true;
  }
  std::vector<std::string> names;

 private:
  size_t room_;
};

TEST(Tmpfs, DataAndSize) {
  TestWorld w;
  auto f = w.Open("f", O_CREAT | O_RDWR).value();
  EXPECT_EQ(w.Write(*f, "hello").value(), 5u);
  EXPECT_EQ(w.PWrite(*f, "far", 10000).value(), 3u);
  EXPECT_EQ(w.PRead(*f, 0, 8), std::string("hello\0\0\0", 8));
  EXPECT_EQ(w.PRead(*f, 10000), "far");
  Kstat st = w.Stat("f").value();
  EXPECT_EQ(st.size, 10003u);
  EXPECT_EQ(st.blocks, 16u);
  EXPECT_EQ(f->Seek(w.Ctx(), 0, SEEK_HOLE).value(), 4096);
  EXPECT_EQ(f->Seek(w.Ctx(), 4096, SEEK_DATA).value(), 8192);
  EXPECT_EQ(f->Seek(w.Ctx(), 10003, SEEK_DATA).error(), kENXIO);
  AttrChange c;
  c.size = 3;
  ASSERT_TRUE(vfs::SetAttr(w.Ctx(), f->path(), c).ok());
  c.size = 6;
  ASSERT_TRUE(vfs::SetAttr(w.Ctx(), f->path(), c).ok());
  EXPECT_EQ(w.PRead(*f, 0), std::string("hel\0\0\0", 6));
}

TEST(Tmpfs, AppendAndSharedOffset) {
  TestWorld w;
  auto a = w.Open("f", O_CREAT | O_RDWR | O_APPEND).value();
  auto b = w.Open("f", O_RDWR).value();
  EXPECT_EQ(w.Write(*b, "12345").value(), 5u);
  EXPECT_EQ(w.Write(*a, "67").value(), 2u);
  EXPECT_EQ(a->offset(), 7);
  EXPECT_EQ(w.PWrite(*a, "89", 0).value(), 2u);  // O_APPEND wins
  EXPECT_EQ(w.Contents("f"), "123456789");
  EXPECT_EQ(b->Seek(w.Ctx(), 2, SEEK_SET).value(), 2);
  EXPECT_EQ(w.Read(*b, 3), "345");
  EXPECT_EQ(w.Read(*b, 100), "6789");
  EXPECT_EQ(w.Read(*b, 100), "");
  EXPECT_EQ(b->offset(), 9);
}

TEST(Tmpfs, LimitsOfSizeAndInodes) {
  TestWorld w({.pages = 4, .inodes = 3, .mode = 0755});
  auto f = w.Open("f", O_CREAT | O_RDWR).value();
  EXPECT_EQ(w.Write(*f, std::string(5 * 4096, 'x')).value(), 4u * 4096);
  EXPECT_EQ(w.Write(*f, "y").error(), kENOSPC);
  EXPECT_EQ(w.fs->StatFs()->blocks_free, 0u);
  ASSERT_TRUE(f->Allocate(w.Ctx(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096).ok());
  EXPECT_EQ(w.fs->StatFs()->blocks_free, 1u);
  EXPECT_EQ(w.Make("g"), kOk);
  EXPECT_EQ(w.Make("h"), kENOSPC);
  EXPECT_EQ(w.Unlink("g"), kOk);
  EXPECT_EQ(w.Make("h"), kOk);
  w.file_size_limit = 8192;
  EXPECT_EQ(w.PWrite(*f, "abc", 8190).value(), 2u);
  EXPECT_EQ(w.PWrite(*f, "abc", 8192).error(), kEFBIG);
}

TEST(Tmpfs, LinksAndUnlink) {
  TestWorld w;
  ASSERT_EQ(w.Make("a", "data"), kOk);
  ASSERT_EQ(w.Link("a", "b"), kOk);
  EXPECT_EQ(w.Stat("a")->nlink, 2u);
  EXPECT_EQ(w.Stat("a")->ino, w.Stat("b")->ino);
  auto f = w.Open("a", O_RDONLY).value();
  EXPECT_EQ(w.Unlink("a"), kOk);
  EXPECT_EQ(w.Unlink("b"), kOk);
  EXPECT_EQ(f->GetAttr()->nlink, 0u);
  EXPECT_EQ(w.PRead(*f, 0), "data");
  EXPECT_EQ(w.mounts->PathName(f->path(), w.root), "/a (deleted)");
  EXPECT_EQ(vfs::Link(w.Ctx(), f->path(), w.cwd, "c").error(), kENOENT);
  ASSERT_EQ(w.Mkdir("d"), kOk);
  EXPECT_EQ(w.Link("d", "e"), kEPERM);
  EXPECT_EQ(w.Unlink("d"), kEISDIR);
}

TEST(Tmpfs, TemporaryFileGetsAName) {
  TestWorld w;
  auto f = w.Open(".", O_TMPFILE | O_RDWR, 0600);
  ASSERT_TRUE(f.ok());
  EXPECT_EQ((*f)->GetAttr()->nlink, 0u);
  w.Write(**f, "t").value();
  ASSERT_TRUE(vfs::Link(w.Ctx(), (*f)->path(), w.cwd, "named").ok());
  EXPECT_EQ(w.Contents("named"), "t");
  EXPECT_EQ(w.Stat("named")->nlink, 1u);
}

TEST(Tmpfs, DirectoriesCountLinksAndRefuseRemovalWhenFull) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("d"), kOk);
  ASSERT_EQ(w.Mkdir("d/e"), kOk);
  EXPECT_EQ(w.Stat("d")->nlink, 3u);
  EXPECT_EQ(w.Rmdir("d"), kENOTEMPTY);
  EXPECT_EQ(w.Rmdir("d/."), kEINVAL);
  EXPECT_EQ(w.Rmdir("d/e/.."), kENOTEMPTY);
  auto e = w.Resolve("d/e").value();
  EXPECT_EQ(w.Rmdir("d/e"), kOk);
  EXPECT_EQ(w.Stat("d")->nlink, 2u);
  w.cwd = e;
  EXPECT_EQ(w.Make("late"), kENOENT);
}

TEST(Tmpfs, Rename) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("d"), kOk);
  ASSERT_EQ(w.Mkdir("d/sub"), kOk);
  ASSERT_EQ(w.Make("a", "A"), kOk);
  ASSERT_EQ(w.Make("b", "B"), kOk);
  EXPECT_EQ(w.Rename("a", "b", RENAME_NOREPLACE), kEEXIST);
  EXPECT_EQ(w.Rename("a", "b"), kOk);
  EXPECT_EQ(w.Contents("b"), "A");
  EXPECT_EQ(w.Stat("a").error(), kENOENT);
  EXPECT_EQ(w.Rename("d", "d/sub/x"), kEINVAL);
  EXPECT_EQ(w.Rename("d/sub", "d"), kENOTEMPTY);
  EXPECT_EQ(w.Rename("b", "d"), kEISDIR);
  EXPECT_EQ(w.Rename("d", "b"), kENOTDIR);
  EXPECT_EQ(w.Rename("b", "d", RENAME_EXCHANGE), kOk);
  EXPECT_EQ(w.Contents("d"), "A");
  EXPECT_TRUE(w.Stat("b/sub").ok());
  EXPECT_EQ(w.Rename("b/sub", "moved"), kOk);
  EXPECT_EQ(w.Stat("b")->nlink, 2u);
  EXPECT_EQ(w.Rename("d", "x", RENAME_WHITEOUT), kOk);
  EXPECT_TRUE(S_ISCHR(w.Stat("d")->mode));
}

TEST(Tmpfs, ListingGoesOnWhereItStoppedAlthoughNamesGo) {
  TestWorld w;
  std::set<std::string> all;
  for (int i = 0; i < 50; ++i) {
    std::string name = "f" + std::to_string(i);
    ASSERT_EQ(w.Make(name), kOk);
    all.insert(name);
  }
  auto d = w.Open(".", O_RDONLY | O_DIRECTORY).value();
  std::set<std::string> seen;
  for (;;) {
    NameSink sink(7);
    ASSERT_TRUE(d->ReadDir(w.Ctx(), sink).ok());
    if (sink.names.empty()) break;
    for (const std::string& n : sink.names) {
      if (n == "." || n == "..") continue;
      EXPECT_TRUE(seen.insert(n).second) << n;
      EXPECT_EQ(w.Unlink(n), kOk);
    }
  }
  EXPECT_EQ(seen, all);
}

TEST(Tmpfs, PrivilegesGoWithAWrite) {
  TestWorld w;
  ASSERT_EQ(w.Make("f"), kOk);
  AttrChange c;
  c.mode = 06777;
  ASSERT_TRUE(vfs::SetAttr(w.Ctx(), w.Resolve("f").value(), c).ok());
  w.Become(1000, 1000);
  auto f = w.Open("f", O_WRONLY).value();
  w.Write(*f, "x").value();
  EXPECT_EQ(w.Stat("f")->mode & 07777, 0777u);
}

TEST(Tmpfs, Xattrs) {
  TestWorld w;
  ASSERT_EQ(w.Make("f"), kOk);
  VfsPath p = w.Resolve("f").value();
  EXPECT_EQ(vfs::GetXattr(w.Ctx(), p, "user.a").error(), kENODATA);
  ASSERT_TRUE(vfs::SetXattr(w.Ctx(), p, "user.a", "1", 0).ok());
  EXPECT_EQ(vfs::SetXattr(w.Ctx(), p, "user.a", "1", 1 /* XATTR_CREATE */).error(), kEEXIST);
  EXPECT_EQ(vfs::SetXattr(w.Ctx(), p, "user.b", "1", 2 /* XATTR_REPLACE */).error(), kENODATA);
  ASSERT_TRUE(vfs::SetXattr(w.Ctx(), p, "trusted.t", "2", 0).ok());
  EXPECT_EQ(vfs::SetXattr(w.Ctx(), p, "bogus.t", "2", 0).error(), kEOPNOTSUPP);
  EXPECT_EQ(vfs::ListXattr(w.Ctx(), p)->size(), 2u);
  w.Become(1000, 1000);
  EXPECT_EQ(vfs::GetXattr(w.Ctx(), p, "trusted.t").error(), kENODATA);
  EXPECT_EQ(vfs::SetXattr(w.Ctx(), p, "user.a", "2", 0).error(), kEACCES);
  EXPECT_EQ(vfs::ListXattr(w.Ctx(), p)->size(), 1u);
}

TEST(Memfd, Seals) {
  TestWorld w;
  auto f = CreateMemfd(w.Ctx(), "m", 2 /* MFD_ALLOW_SEALING */).value();
  EXPECT_EQ(w.mounts->PathName(f->path(), w.root), "/memfd:m (deleted)");
  w.Write(*f, "12345678").value();
  ASSERT_TRUE(AddSeals(*f, F_SEAL_GROW | F_SEAL_SHRINK).ok());
  EXPECT_EQ(w.PWrite(*f, "9", 8).error(), kEPERM);
  EXPECT_EQ(w.PWrite(*f, "9", 0).value(), 1u);
  ASSERT_TRUE(AddSeals(*f, F_SEAL_WRITE | F_SEAL_SEAL).ok());
  EXPECT_EQ(w.PWrite(*f, "9", 0).error(), kEPERM);
  EXPECT_EQ(AddSeals(*f, F_SEAL_WRITE).error(), kEPERM);
  EXPECT_EQ(GetSeals(*CreateMemfd(w.Ctx(), "m", 0).value()).value(), F_SEAL_SEAL);
}

class RecordingSpace : public MappingSpace {
 public:
  void InvalidateMapping(GuestAddr start, GuestAddr end) override { calls.push_back({start, end}); }
  std::vector<std::pair<GuestAddr, GuestAddr>> calls;
};

TEST(PagedDataMapping, TruncationTakesPagesFromMappings) {
  TestWorld w;
  auto f = w.Open("f", O_CREAT | O_RDWR).value();
  w.PWrite(*f, std::string(4 * 4096, 'x'), 0).value();
  RefPtr<Mappable> m = f->GetMappable().value();
  RecordingSpace space;
  ASSERT_TRUE(m->AddMapping(space, 0x10000, 0x14000, 0, true).ok());
  HostPages p = m->Translate(0, 4 * 4096, true).value();
  EXPECT_TRUE(p.in_memory_file);
  EXPECT_EQ(p.range.length(), 4u * 4096);
  AttrChange c;
  c.size = 4097;
  ASSERT_TRUE(vfs::SetAttr(w.Ctx(), f->path(), c).ok());
  ASSERT_FALSE(space.calls.empty());
  EXPECT_EQ(space.calls[0], (std::pair<GuestAddr, GuestAddr>(0x12000, 0x14000)));
  EXPECT_EQ(m->Translate(2 * 4096, 4096, false).error(), kENXIO);
  EXPECT_TRUE(m->Translate(4096, 4096, false).ok());
  m->RemoveMapping(space, 0x10000, 0x14000, 0, true);
}

// One file against a string, with random operations.
TEST(TmpfsModel, FileBehavesLikeAString) {
  TestWorld w;
  auto f = w.Open("f", O_CREAT | O_RDWR).value();
  std::string model;
  std::mt19937 random(42);
  auto pick = [&](uint32_t n) { return random() % n; };
  for (int step = 0; step < 3000; ++step) {
    size_t at = pick(60000), n = pick(9000);
    switch (pick(5)) {
      case 0: {
        std::string text(n, static_cast<char>('a' + pick(26)));
        ASSERT_EQ(w.PWrite(*f, text, static_cast<int64_t>(at)).value(), n);
        if (n != 0 && model.size() < at + n) model.resize(at + n);
        model.replace(at > model.size() ? model.size() : at, n, text);
        break;
      }
      case 1: {
        AttrChange c;
        c.size = at;
        ASSERT_TRUE(vfs::SetAttr(w.Ctx(), f->path(), c).ok());
        model.resize(at);
        break;
      }
      case 2: {
        ASSERT_TRUE(f->Allocate(w.Ctx(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<int64_t>(at),
                                static_cast<int64_t>(n + 1))
                        .ok());
        for (size_t i = at; i < std::min(model.size(), at + n + 1); ++i) model[i] = '\0';
        break;
      }
      case 3: {
        ASSERT_TRUE(f->Allocate(w.Ctx(), 0, static_cast<int64_t>(at), static_cast<int64_t>(n + 1)).ok());
        if (model.size() < at + n + 1) model.resize(at + n + 1);
        break;
      }
      default: {
        std::string expected = at < model.size() ? model.substr(at, n) : "";
        ASSERT_EQ(w.PRead(*f, static_cast<int64_t>(at), n), expected) << step;
      }
    }
    ASSERT_EQ(f->GetAttr()->size, model.size());
  }
  EXPECT_EQ(w.PRead(*f, 0, 1 << 20), model);
  ASSERT_EQ(w.Unlink("f"), kOk);
  f.reset();
  EXPECT_EQ(w.fs->quota()->used_pages(), 0u);
}

// A tree of names against a map of paths.
TEST(TmpfsModel, NamesBehaveLikeAMap) {
  TestWorld w;
  std::map<std::string, int> model;  // path -> id of the file, -1 for directories
  std::map<int, std::string> content;
  std::mt19937 random(7);
  auto pick = [&](uint32_t n) { return random() % n; };
  auto path = [&] {
    std::string p;
    for (uint32_t i = 0, depth = 1 + pick(3); i < depth; ++i)
      p += (i ? "/" : "") + std::string(1, static_cast<char>('a' + pick(3)));
    return p;
  };
  auto parent_ok = [&](const std::string& p) {
    size_t slash = p.rfind('/');
    if (slash == p.npos) return true;
    auto it = model.find(p.substr(0, slash));
    return it != model.end() && it->second == -1;
  };
  auto has_children = [&](const std::string& p) {
    auto it = model.lower_bound(p + "/");
    return it != model.end() && it->first.starts_with(p + "/");
  };
  int next = 0;
  for (int step = 0; step < 5000; ++step) {
    std::string p = path(), q = path();
    switch (pick(5)) {
      case 0: {
        bool ok = parent_ok(p) && !model.contains(p);
        bool made = w.Mkdir(p) == kOk;
        ASSERT_EQ(made, ok) << p;
        if (ok) model[p] = -1;
        break;
      }
      case 1: {
        bool ok = parent_ok(p) && !model.contains(p);
        auto f = w.Open(p, O_CREAT | O_EXCL | O_WRONLY);
        ASSERT_EQ(f.ok(), ok) << p;
        if (ok) {
          model[p] = next;
          content[next] = std::to_string(next);
          w.Write(**f, content[next]).value();
          ++next;
        }
        break;
      }
      case 2: {
        auto it = model.find(p);
        bool dir = it != model.end() && it->second == -1;
        bool ok = it != model.end() && !(dir && has_children(p)) && parent_ok(p);
        Errno e = dir ? w.Rmdir(p) : w.Unlink(p);
        ASSERT_EQ(e == kOk, ok) << p;
        if (ok) model.erase(p);
        break;
      }
      case 3: {
        auto from = model.find(p);
        auto to = model.find(q);
        bool ok = from != model.end() && parent_ok(q) && !q.starts_with(p + "/");
        if (ok && to != model.end() && p != q) {
          bool dir = from->second == -1, to_dir = to->second == -1;
          ok = dir == to_dir && !(to_dir && has_children(q));
        }
        ASSERT_EQ(w.Rename(p, q) == kOk, ok) << p << " -> " << q;
        if (ok && p != q) {
          std::map<std::string, int> moved;
          for (auto it = model.begin(); it != model.end();) {
            if (it->first == p || it->first.starts_with(p + "/")) {
              moved[q + it->first.substr(p.size())] = it->second;
              it = model.erase(it);
            } else {
              ++it;
            }
          }
          model.erase(q);
          model.merge(moved);
        }
        break;
      }
      default: {
        auto it = model.find(p);
        auto st = w.Stat(p);
        ASSERT_EQ(st.ok(), it != model.end()) << p;
        if (it != model.end() && it->second >= 0) {
          ASSERT_EQ(w.Contents(p), content[it->second]);
        }
      }
    }
  }
}

TEST(Tmpfs, DeepTreesEndWithoutRecursion) {
  TestWorld w;
  for (int i = 0; i < 20000; ++i) {
    ASSERT_EQ(w.Mkdir("d"), kOk);
    w.cwd = w.Resolve("d").value();
  }
}

}  // namespace
}  // namespace moat
