// Threads on one address space: what a thread of the guest or of the sentry does to its own pages must hold whatever
// the others do to theirs.
#include <atomic>
#include <thread>
#include <vector>

#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

constexpr int kRw = PROT_READ | PROT_WRITE;

// The case that fork must wait for: bytes that the sentry copies out while another thread forks and stores next to
// them may not miss the parent.
TEST_F(MmTest, CopiesOutSurviveConcurrentForks) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 300;
  const GuestAddr a = guest().Map(kThreads * kPageSize, kRw);
  std::atomic<bool> stop{false};
  std::atomic<int> lost{0};
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      // All in one copy-on-write window, so that each one's stores copy the others' pages.
      const GuestAddr mine = a + t * kPageSize;
      for (uint32_t round = 1; !stop; ++round) {
        if (mm().CopyOut(mine, &round, sizeof round) != sizeof round) ++lost;
        uint32_t seen = 0;
        if (mm().CopyIn(&seen, mine, sizeof seen) != sizeof seen || seen != round) ++lost;
      }
    });
  }
  for (int i = 0; i < kRounds; ++i) {
    auto child = guest().Fork();
    uint32_t first = 0, second = 0;
    child->mm().CopyIn(&first, a, sizeof first);
    std::this_thread::yield();
    child->mm().CopyIn(&second, a, sizeof second);
    if (first != second) ++lost;  // the child's memory is its own
  }
  stop = true;
  for (std::thread& w : writers) w.join();
  EXPECT_EQ(lost, 0);
}

TEST_F(MmTest, MappingsComeAndGoBesideCopies) {
  constexpr int kThreads = 3;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  (void)guest();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto mark = static_cast<uint8_t>(t + 1);
      std::vector<uint8_t> buffer(8 * kPageSize);
      for (int i = 0; i < 200; ++i) {
        MmapRequest request;
        request.length = 8 * kPageSize;
        request.prot = kRw;
        request.flags = MAP_PRIVATE | MAP_ANONYMOUS;
        Result<GuestAddr> at = mm().Mmap(request, {}, nullptr);
        if (!at.ok()) {
          ++wrong;
          break;
        }
        if (mm().CopyIn(buffer.data(), *at, buffer.size()) != buffer.size()) ++wrong;
        for (uint8_t byte : buffer) wrong += byte != 0 ? 1 : 0;  // never what another had
        std::fill(buffer.begin(), buffer.end(), mark);
        if (mm().CopyOut(*at, buffer.data(), buffer.size()) != buffer.size()) ++wrong;
        if (mm().CopyIn(buffer.data(), *at, buffer.size()) != buffer.size()) ++wrong;
        for (uint8_t byte : buffer) wrong += byte != mark ? 1 : 0;
        if (!mm().Munmap(*at, buffer.size(), nullptr).ok()) ++wrong;
        if (mm().CopyIn(buffer.data(), 0x1000, 1) != 0) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace moat
