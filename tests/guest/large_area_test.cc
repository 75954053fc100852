// Large private anonymous areas: worked through, touched here and there, forked, cut, grown and emptied.
// Source: mmap(2), mremap(2), madvise(2), mincore(2), fork(2), read(2).
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "platform/base/scoped_fd.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"

namespace moat::guest {
namespace {

constexpr size_t kArea = 48 << 20;
constexpr size_t kHuge = 2 << 20;

uint32_t Mark(size_t offset) { return static_cast<uint32_t>(offset / kPage * 2654435761u) | 1; }
uint32_t& Word(char* p) { return *reinterpret_cast<uint32_t*>(p); }
void Fill(char* p, size_t from, size_t to) {
  for (size_t o = from; o < to; o += kPage) Word(p + o) = Mark(o);
}
// The offset of the first page in [from, to) that does not have its mark (or, `zero`, is not empty); `to` if none.
size_t FirstWrong(char* p, size_t from, size_t to, bool zero = false) {
  for (size_t o = from; o < to; o += kPage)
    if (Word(p + o) != (zero ? 0 : Mark(o))) return o;
  return to;
}

TEST(LargeArea, UpwardsAndDownwards) {
  const Mapping up(kArea), down(kArea);
  Fill(up.data(), 0, kArea);
  for (size_t o = kArea; o != 0; o -= kPage) Word(down.data() + o - kPage) = Mark(o - kPage);
  EXPECT_EQ(FirstWrong(up.data(), 0, kArea), kArea);
  EXPECT_EQ(FirstWrong(down.data(), 0, kArea), kArea);
}
TEST(LargeArea, UntouchedIsZero) {
  const Mapping m(kArea);
  Fill(m.data(), 0, kArea / 4);
  Word(m.data() + kArea - kPage) = 7;
  EXPECT_EQ(FirstWrong(m.data(), kArea / 4, kArea - kPage, true), kArea - kPage);
}
TEST(LargeArea, AnyOrder) {
  const Mapping m(kArea);
  std::vector<size_t> pages(kArea / kPage);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = i * kPage;
  std::shuffle(pages.begin(), pages.end(), std::mt19937(5));
  for (size_t o : pages) Word(m.data() + o) = Mark(o);
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea);
}
TEST(LargeArea, ForkedHalfFilled) {
  const Mapping m(kArea);
  Fill(m.data(), 0, kArea / 2);
  const int status = StatusOf([&] {
    if (FirstWrong(m.data(), 0, kArea / 2) != kArea / 2) _exit(1);
    for (size_t o = 0; o < kArea / 2; o += 16 * kPage) Word(m.data() + o) = 3;
    Fill(m.data(), kArea / 2, kArea);
    if (FirstWrong(m.data(), kArea / 2, kArea) != kArea) _exit(2);
    _exit(0);
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea / 2), kArea / 2);
  EXPECT_EQ(FirstWrong(m.data(), kArea / 2, kArea, true), kArea);
  Fill(m.data(), kArea / 2, kArea);
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea);
}
TEST(LargeArea, HolesAreHoles) {
  const Mapping m(kArea);
  Fill(m.data(), 0, kArea);
  // A page, a border of 2 MiB, several of them.
  const struct {
    size_t start, length;
  } holes[] = {{5 * kPage, kPage}, {kHuge - kPage, 2 * kPage}, {4 * kHuge + kPage, 3 * kHuge}};
  for (const auto& hole : holes) ASSERT_EQ(munmap(m.data() + hole.start, hole.length), 0);
  size_t from = 0;
  for (const auto& hole : holes) {
    EXPECT_EQ(FirstWrong(m.data(), from, hole.start), hole.start);
    from = hole.start + hole.length;
    const int status = StatusOf([&] { Word(m.data() + hole.start) = 1; });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  }
  EXPECT_EQ(FirstWrong(m.data(), from, kArea), kArea);
}
TEST(LargeArea, EmptiedInPart) {
  const Mapping m(kArea);
  Fill(m.data(), 0, kArea);
  ASSERT_EQ(madvise(m.data() + 3 * kPage, kPage, MADV_DONTNEED), 0);
  ASSERT_EQ(madvise(m.data() + 2 * kHuge + kPage, 2 * kHuge, MADV_DONTNEED), 0);
  EXPECT_EQ(FirstWrong(m.data(), 0, 3 * kPage), 3 * kPage);
  EXPECT_EQ(Word(m.data() + 3 * kPage), 0u);
  EXPECT_EQ(FirstWrong(m.data(), 4 * kPage, 2 * kHuge + kPage), 2 * kHuge + kPage);
  EXPECT_EQ(FirstWrong(m.data(), 2 * kHuge + kPage, 4 * kHuge + kPage, true), 4 * kHuge + kPage);
  EXPECT_EQ(FirstWrong(m.data(), 4 * kHuge + kPage, kArea), kArea);
  Fill(m.data(), 0, kArea);
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea);
}
TEST(LargeArea, ProtectedInPart) {
  const Mapping m(kArea);
  Fill(m.data(), 0, kArea / 2);
  ASSERT_EQ(mprotect(m.data() + kPage, kArea - 2 * kPage, PROT_READ), 0);
  for (size_t o : {kPage, kHuge, kArea / 2, kArea - 2 * kPage}) {
    const int status = StatusOf([&] { Word(m.data() + o) = 1; });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << o;
  }
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea / 2), kArea / 2);
  EXPECT_EQ(FirstWrong(m.data(), kArea / 2, kArea, true), kArea);
  ASSERT_EQ(mprotect(m.data(), kArea, PROT_READ | PROT_WRITE), 0);
  Fill(m.data(), kArea / 2, kArea);
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea);
}
TEST(LargeArea, GrownAndMoved) {
  char* p = static_cast<char*>(mmap(nullptr, kArea / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(p, MAP_FAILED);
  for (size_t size = kArea / 4; size < kArea; size += kArea / 4) {
    Fill(p, size - kArea / 4, size);
    p = static_cast<char*>(mremap(p, size, size + kArea / 4, MREMAP_MAYMOVE));
    ASSERT_NE(p, MAP_FAILED);
  }
  Fill(p, kArea - kArea / 4, kArea);
  EXPECT_EQ(FirstWrong(p, 0, kArea), kArea);
  p = static_cast<char*>(mremap(p, kArea, kHuge + kPage, 0));
  EXPECT_EQ(FirstWrong(p, 0, kHuge + kPage), kHuge + kPage);
  munmap(p, kHuge + kPage);
}
// The kernel stores where the program has not been.
TEST(LargeArea, ReadIntoUntouched) {
  const Mapping m(kArea);
  const ScopedFd memory(memfd_create("data", 0));
  const std::vector<char> pattern(5 * kHuge, 'x');
  ASSERT_EQ(write(memory.get(), pattern.data(), pattern.size()), static_cast<ssize_t>(pattern.size()));
  Fill(m.data(), 0, kHuge);
  ASSERT_EQ(pread(memory.get(), m.data() + kHuge, pattern.size(), 0), static_cast<ssize_t>(pattern.size()));
  EXPECT_EQ(memcmp(m.data() + kHuge, pattern.data(), pattern.size()), 0);
  EXPECT_EQ(FirstWrong(m.data(), 0, kHuge), kHuge);
  EXPECT_EQ(FirstWrong(m.data(), 6 * kHuge, kArea, true), kArea);
  // And reads where nobody has been.
  const Mapping empty(kArea);
  ASSERT_EQ(pwrite(memory.get(), empty.data() + kHuge, 3 * kHuge, 0), static_cast<ssize_t>(3 * kHuge));
  std::vector<char> back(3 * kHuge, 'y');
  ASSERT_EQ(pread(memory.get(), back.data(), back.size(), 0), static_cast<ssize_t>(back.size()));
  EXPECT_EQ(std::count(back.begin(), back.end(), '\0'), static_cast<ssize_t>(back.size()));
}
TEST(LargeArea, OneTouchDoesNotMakeItResident) {
  const Mapping m(kArea);
  Word(m.data() + kArea / 2) = 1;
  std::vector<unsigned char> pages(kArea / kPage);
  ASSERT_EQ(mincore(m.data(), kArea, pages.data()), 0);
  EXPECT_LE(std::count_if(pages.begin(), pages.end(), [](unsigned char c) { return c & 1; }), 1);
  EXPECT_EQ(pages[kArea / 2 / kPage] & 1, 1);
}
TEST(LargeArea, ThreadsWorkThroughItSideBySide) {
  const Mapping m(kArea);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (size_t o = t * kPage; o < kArea; o += 4 * kPage) Word(m.data() + o) = Mark(o);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea);
}
TEST(LargeArea, AdviceAboutHugePages) {
  for (const int advice : {MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_RANDOM, MADV_SEQUENTIAL}) {
    const Mapping m(kArea);
    if (madvise(m.data(), kArea, advice) != 0) continue;  // a kernel without huge pages
    Fill(m.data(), 0, kArea);
    EXPECT_EQ(FirstWrong(m.data(), 0, kArea), kArea) << advice;
  }
}
TEST(LargeArea, LiesAtABorderOfHugePages) {
  // Linux since 6.7; a process of tests has room for it.
  const Mapping one(kHuge), two(2 * kHuge), odd(kHuge + kPage);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(one.data()) % kHuge, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(two.data()) % kHuge, 0u);
}

}  // namespace
}  // namespace moat::guest
