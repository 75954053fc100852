// Mappings as a dynamic loader makes them, one over the other and with MAP_DENYWRITE, and whoever looks at them before
// the last one is there.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

constexpr size_t kPages = 12;
constexpr int kLoads = MAP_PRIVATE | MAP_DENYWRITE;

class LoaderMapping : public testing::Test {
 protected:
  // Page i of the file is full of 'a' + i.
  void SetUp() override {
    std::string content;
    for (size_t i = 0; i < kPages; ++i) content.append(kPage, static_cast<char>('a' + i));
    fd_.Reset(open(dir_.File("library", content).c_str(), O_RDONLY));
    ASSERT_OK(fd_.get());
  }
  char* Whole(int prot = PROT_READ) {
    void* at = mmap(nullptr, kPages * kPage, prot, kLoads, fd_.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    return static_cast<char*>(at);
  }
  // Pages of the file from `file_page` on, over `count` pages of the library at `base` from `page` on.
  void Segment(char* base, size_t page, size_t count, size_t file_page, int prot) {
    char* const at = base + page * kPage;
    ASSERT_EQ(mmap(at, count * kPage, prot, kLoads | MAP_FIXED, fd_.get(), static_cast<off_t>(file_page * kPage)), at);
  }
  // The first bytes of the pages.
  static std::string Look(const char* base, size_t pages = kPages) {
    std::string out;
    for (size_t i = 0; i < pages; ++i) out += const_cast<const volatile char*>(base)[i * kPage + 7];
    return out;
  }
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(LoaderMapping, SegmentsOverTheWhole) {
  char* const base = Whole();
  Segment(base, 2, 4, 2, PROT_READ | PROT_EXEC);
  Segment(base, 6, 3, 5, PROT_READ);
  Segment(base, 9, 2, 7, PROT_READ | PROT_WRITE);
  EXPECT_EQ(Look(base), "abcdeffghhil");
  base[9 * kPage + 7] = 'Z';
  EXPECT_EQ(Look(base), "abcdeffghZil");
  ASSERT_OK(munmap(base, kPages * kPage));
}
TEST_F(LoaderMapping, EachIsThereWhenItIsTouched) {
  char* const base = Whole();
  EXPECT_EQ(Look(base), "abcdefghijkl");
  Segment(base, 2, 4, 3, PROT_READ);
  EXPECT_EQ(Look(base), "abdefgghijkl");
  Segment(base, 3, 2, 0, PROT_READ);
  EXPECT_EQ(Look(base), "abdabgghijkl");
  ASSERT_OK(munmap(base, kPages * kPage));
}
TEST_F(LoaderMapping, OverOtherMemory) {
  const Mapping memory(kPages * kPage);
  memset(memory.data(), '.', memory.size());
  Segment(memory.data(), 2, 4, 0, PROT_READ);
  EXPECT_EQ(Look(memory.data()), "..abcd......");
  Segment(memory.data(), 4, 4, 0, PROT_READ);
  EXPECT_EQ(Look(memory.data()), "..ababcd....");
}
TEST_F(LoaderMapping, PartsThatGoAgain) {
  char* const base = Whole();
  ASSERT_OK(munmap(base + 4 * kPage, 2 * kPage));
  ASSERT_OK(mprotect(base + 8 * kPage, kPage, PROT_NONE));
  EXPECT_EQ(Look(base, 4), "abcd");
  EXPECT_EQ(Look(base + 6 * kPage, 2), "gh");
  EXPECT_EQ(Look(base + 9 * kPage, 3), "jkl");
  for (const size_t page : {4, 5, 8}) {
    const int status = StatusOf([&] { Look(base + page * kPage, 1); });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << page;
  }
  // All of it, untouched.
  char* const other = Whole();
  Segment(other, 3, 2, 0, PROT_READ);
  ASSERT_OK(munmap(other, kPages * kPage));
  const int status = StatusOf([&] { Look(other + 3 * kPage, 1); });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  // And another thing in its place.
  const Mapping memory(kPage);
  ASSERT_EQ(mmap(other, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), other);
  EXPECT_EQ(other[7], 0);
  ASSERT_OK(munmap(base, kPages * kPage));
}
TEST_F(LoaderMapping, StoresAreRefused) {
  char* const base = Whole();
  const int status = StatusOf([&] { *const_cast<volatile char*>(base) = 1; });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  const ScopedAction action(SIGSEGV, SignalLog::Record, SA_RESETHAND);
  SignalLog::Reset();
  EXPECT_EQ(Look(base, 1), "a");
  EXPECT_EQ(SignalLog::count, 0) << "the first touch is nobody's business";
  ASSERT_OK(munmap(base, kPages * kPage));
}
TEST_F(LoaderMapping, CallsAndOtherThreadsAndChildrenSeeIt) {
  int ends[2];
  ASSERT_OK(pipe(ends));
  const ScopedFd in(ends[0]), out(ends[1]);
  char* const first = Whole();
  char byte = 0;
  ASSERT_EQ(write(out.get(), first + 3 * kPage, 1), 1);
  ASSERT_EQ(read(in.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'd');
  char* const second = Whole();
  std::string seen;
  std::thread([&] { seen = Look(second); }).join();
  EXPECT_EQ(seen, "abcdefghijkl");
  char* const third = Whole();
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(Look(third), "abcdefghijkl"); }));
  for (char* base : {first, second, third}) ASSERT_OK(munmap(base, kPages * kPage));
}
TEST_F(LoaderMapping, ThreadsLoadAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        char* const base = Whole();
        Segment(base, 2, 4, 2, PROT_READ | PROT_EXEC);
        Segment(base, 6, 3, 5, PROT_READ);
        if (round % 3 == 0) ASSERT_EQ(Look(base, 9), "abcdeffgh");
        if (round % 3 != 1) Segment(base, 9, 2, 7, PROT_READ | PROT_WRITE);
        ASSERT_EQ(Look(base), round % 3 != 1 ? "abcdeffghhil" : "abcdeffghjkl");
        ASSERT_OK(munmap(base, kPages * kPage));
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace moat::guest
