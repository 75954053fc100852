// A model test: random operations on an overlay and on a plain file system that began with the same tree must answer
// the same and leave the same tree. For any kind of layer, as overlay_suite.h.
#ifndef MOAT_FS_OVERLAY_OVERLAY_MODEL_H_
#define MOAT_FS_OVERLAY_OVERLAY_MODEL_H_

#include <dirent.h>
#include <gtest/gtest.h>
#include <linux/fs.h>

#include <chrono>
#include <map>
#include <random>

#include "fs/overlay/overlay_fs.h"
#include "fs/overlay/vfs_for_test.h"

namespace moat {

class OverlayModel {
 public:
  OverlayModel(uint64_t seed, std::chrono::milliseconds budget) : random_(seed), budget_(budget) {}

  template <typename Layers>
  void Run() {
    Layers layers;
    Run(layers, [&](VfsForTest& lower, RefPtr<FileSystem> fs) -> Result<RefPtr<FileSystem>> {
      return RefPtr<FileSystem>(TRY(OverlayFs::Create(lower.ctx(), layers.NewFs(), {std::move(fs)})));
    });
  }

  // `make(lower, fs)` gives the overlay over `fs`. With `remake` it is asked again and again, and each time must give
  // an overlay that shows what the last one did.
  template <typename Layers, typename Make>
  void Run(Layers& layers, Make make, bool remake = false) {
    RefPtr<FileSystem> lower_fs = layers.NewFs(), plain_fs = layers.NewFs();
    VfsForTest lower(lower_fs), plain(plain_fs);
    for (int i = 0; i < 120; ++i) {
      Step step = RandomStep(/*building=*/true);
      // A copy is of one name: hard links in a lower part there (overlayfs.rst).
      if (remake && step.kind == 4) step.number |= 1;
      ASSERT_EQ(Apply(lower, step), Apply(plain, step)) << step.Text();
    }
    Result<RefPtr<FileSystem>> fs = make(lower, lower_fs);
    ASSERT_TRUE(fs.ok()) << ErrnoName(fs.error());
    auto made = std::make_unique<VfsForTest>(std::move(fs).value());
    std::map<std::string, std::string> lower_before = Tree(lower);
    ASSERT_EQ("", Difference(plain, *made));
    auto end = std::chrono::steady_clock::now() + budget_;
    int steps = 0;
    for (; std::chrono::steady_clock::now() < end; ++steps) {
      Step step = RandomStep(/*building=*/false);
      VfsForTest& overlay = *made;
      if (remake && step.kind == 4) step.number |= 1;
      ASSERT_EQ(Apply(plain, step), Apply(overlay, step)) << "step " << steps << ": " << step.Text();
      if (steps % 40 == 0) {
        ASSERT_EQ("", Difference(plain, overlay)) << "after step " << steps << ": " << step.Text();
      }
      if (remake && steps % 300 == 299) {
        made.reset();
        fs = make(lower, lower_fs);
        ASSERT_TRUE(fs.ok()) << ErrnoName(fs.error());
        made = std::make_unique<VfsForTest>(std::move(fs).value());
        ASSERT_EQ("", Difference(plain, *made)) << "made again after step " << steps;
      }
    }
    EXPECT_EQ("", Difference(plain, *made));
    EXPECT_EQ(lower_before, Tree(lower)) << "the lower changed";
    printf("%d steps\n", steps);
  }

 private:
  struct Step {
    int kind;
    std::string a, b;
    uint64_t number;
    std::string Text() const {
      return "kind " + std::to_string(kind) + " " + a + " " + b + " " + std::to_string(number);
    }
  };
  uint64_t Below(uint64_t n) { return random_() % n; }
  std::string RandomPath() {
    static const char* const kNames[] = {"a", "b", "c", "d"};
    std::string path;
    for (uint64_t depth = 1 + Below(3); depth > 0; --depth) path += std::string("/") + kNames[Below(4)];
    return path;
  }
  Step RandomStep(bool building) {
    int kind = static_cast<int>(building ? Below(5) : Below(14));
    return {kind, RandomPath(), RandomPath(), Below(100'000)};
  }

  // What the operation answered, in words.
  static std::string Apply(VfsForTest& v, const Step& s) {
    auto word = [](Errno e) { return std::string(e == Errno::kOK ? "ok" : ErrnoName(e)); };
    std::string data = std::to_string(s.number);
    switch (s.kind) {
      case 0:
      case 1:
        return word(v.Mkdir(s.a).error());
      case 2:
      case 3:
        return word(v.Write(s.a, data).error());
      case 4:
        return s.number % 2 == 0 ? word(v.Link(s.a, s.b).error()) : word(v.Symlink("../target" + data, s.a).error());
      case 5:
        return word(v.Write(s.a, data, 0).error());
      case 6:
        return word(v.Write(s.a, data, O_APPEND).error());
      case 7:
        return word(v.Unlink(s.a).error());
      case 8:
        return word(v.Rmdir(s.a).error());
      case 9:
      case 10:
        return word(v.Rename(s.a, s.b).error());
      case 11:
        return word(v.Rename(s.a, s.b, s.number % 2 == 0 ? RENAME_EXCHANGE : RENAME_NOREPLACE).error());
      case 12: {
        Result<Kstat> st = v.Stat(s.a);
        if (st.ok() && S_ISLNK(st->mode)) return "symlink";
        return word(v.Chmod(s.a, 0700 | (s.number & 077)).error());
      }
      case 13: {
        // A description that was open before the change.
        auto reader = v.Open(s.a, O_RDONLY | O_NOFOLLOW);
        Errno written = v.Write(s.a, data, O_TRUNC).error();
        if (!reader.ok()) return word(reader.error()) + " " + word(written);
        Result<std::string> seen = v.ReadFrom(**reader);
        return word(written) + " " + (seen.ok() ? *seen : word(seen.error()));
      }
    }
    return "";
  }

  // Every path with what can be seen of it.
  static std::map<std::string, std::string> Tree(VfsForTest& v) {
    std::map<std::string, std::string> out;
    Collect(v, "", out);
    return out;
  }
  // The first few paths that are not the same.
  static std::string Difference(VfsForTest& plain, VfsForTest& overlay) {
    std::map<std::string, std::string> want = Tree(plain), have = Tree(overlay);
    std::string out;
    int lines = 0;
    for (const auto& [path, text] : have) want.try_emplace(path, "nothing");
    for (const auto& [path, text] : want) {
      auto it = have.find(path);
      std::string seen = it == have.end() ? "nothing" : it->second;
      if (seen != text && ++lines <= 5) out += path + ": plain " + text + ", overlay " + seen + "\n";
    }
    return out;
  }
  static void Collect(VfsForTest& v, const std::string& dir, std::map<std::string, std::string>& out) {
    Result<std::vector<VfsForTest::Listed>> entries = v.List(dir.empty() ? "/" : dir);
    if (!entries.ok()) {
      out[dir] = "cannot be listed: " + std::string(ErrnoName(entries.error()));
      return;
    }
    for (const VfsForTest::Listed& e : *entries) {
      std::string path = dir + "/" + e.name;
      Result<Kstat> st = v.Stat(path);
      if (!st.ok()) {
        out[path] = "cannot be read: " + std::string(ErrnoName(st.error()));
        continue;
      }
      std::string text = std::to_string(st->mode);
      if (e.ino != st->ino) text += " but listed with another number";
      if (IFTODT(st->mode) != e.type) text += " but listed as another type";
      if (S_ISREG(st->mode)) text += " " + std::to_string(st->nlink) + " " + v.Read(path).value_or("?");
      if (S_ISLNK(st->mode)) text += " -> " + v.Readlink(path).value_or("?");
      out[path] = text;
      if (S_ISDIR(st->mode)) Collect(v, path, out);
    }
  }

  std::mt19937_64 random_;
  std::chrono::milliseconds budget_;
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_MODEL_H_
