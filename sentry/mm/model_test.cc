// Random operations on a MemoryManager against a plain model of what each byte of the guest's memory should be.
#include <signal.h>

#include <map>
#include <random>

#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

constexpr GuestAddr kBase = 0x200000000;
constexpr int kPages = 96;

// A "page" is a page, or several so that areas are large; one byte stands for each.
struct Model {
  struct Page {
    int prot;
    uint8_t value;
    RefPtr<Mappable> file;  // not null: a shared mapping of page `value`'s file
    size_t file_page = 0;
  };
  std::map<int, Page> pages;
};

struct Process {
  std::unique_ptr<TestGuest> guest;
  Model model;
};

class ModelTest : public MmTest, public testing::WithParamInterface<std::tuple<int, uint64_t>> {
 protected:
  const uint64_t page_size_ = std::get<1>(GetParam()) * kPageSize;

  void Check(Process& p) {
    for (int i = 0; i < kPages; ++i) CheckPage(p, i);
  }
  void CheckPage(Process& p, int i) {
    const GuestAddr addr = kBase + i * page_size_ + 17;
    auto it = p.model.pages.find(i);
    const int expected = it == p.model.pages.end() || it->second.prot == 0 ? -SIGSEGV : Value(it->second);
    uint8_t copied = 0;
    const size_t n = p.guest->mm().CopyIn(&copied, addr, 1);
    ASSERT_EQ(n, expected < 0 ? 0u : 1u) << "page " << i;
    if (n == 1) {
      ASSERT_EQ(copied, expected) << "page " << i;
    }
    ASSERT_EQ(p.guest->LoadOr(addr), expected) << "page " << i;
  }
  int Value(const Model::Page& page) { return page.file ? shared_[page.file_page] : page.value; }

  // `through_copy`: by the sentry, else by guest code.
  void Store(Process& p, int i, uint8_t value, bool through_copy) {
    const GuestAddr addr = kBase + i * page_size_ + 17;
    auto it = p.model.pages.find(i);
    const bool allowed = it != p.model.pages.end() && (it->second.prot & PROT_WRITE) != 0;
    if (through_copy) {
      ASSERT_EQ(p.guest->mm().CopyOut(addr, &value, 1), allowed ? 1u : 0u) << "page " << i;
    } else {
      ASSERT_EQ(p.guest->Store(addr, value), allowed ? 0 : SIGSEGV) << "page " << i;
    }
    if (!allowed) return;
    if (it->second.file) {
      shared_[it->second.file_page] = value;
    } else {
      it->second.value = value;
    }
  }

  std::map<size_t, uint8_t> shared_;  // contents of the shared file's pages
};

TEST_P(ModelTest, RandomOperations) {
  std::mt19937 rng(static_cast<unsigned>(std::get<0>(GetParam())));
  auto pick = [&rng](int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); };
  auto file = MakeRef<TestFile>(std::string(kPages * page_size_, '\0'));
  std::vector<Process> processes(1);
  processes[0].guest = std::make_unique<TestGuest>(env_);
  constexpr int kProts[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                            PROT_READ | PROT_EXEC};

  for (int step = 0; step < 1500 && !HasFatalFailure(); ++step) {
    Process& p = processes[pick(static_cast<int>(processes.size()))];
    MemoryManager& mm = p.guest->mm();
    p.guest->known_faults = pick(2) == 0;
    const int first = pick(kPages), count = 1 + pick(std::min(24, kPages - first));
    const GuestAddr addr = kBase + first * page_size_;
    const uint64_t length = count * page_size_;
    const int prot = kProts[pick(5)];
    switch (pick(12)) {
      case 0: {
        p.guest->Map(length, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, addr);
        for (int i = first; i < first + count; ++i) p.model.pages[i] = {prot, 0, nullptr, 0};
        break;
      }
      case 1: {
        p.guest->Map(length, prot, MAP_SHARED | MAP_FIXED, addr, file, first * page_size_);
        for (int i = first; i < first + count; ++i) p.model.pages[i] = {prot, 0, file, static_cast<size_t>(i)};
        break;
      }
      case 2: {
        ASSERT_TRUE(mm.Munmap(addr, length, nullptr).ok());
        for (int i = first; i < first + count; ++i) p.model.pages.erase(i);
        break;
      }
      case 3: {
        const Errno error = mm.Mprotect(addr, length, prot, p.guest->limits, nullptr).error();
        bool hole = false;
        for (int i = first; i < first + count && !hole; ++i) {
          auto it = p.model.pages.find(i);
          if (it == p.model.pages.end()) {
            hole = true;
          } else {
            it->second.prot = prot;
          }
        }
        ASSERT_EQ(error, hole ? kENOMEM : Errno::kOK);
        break;
      }
      case 4: {
        if (processes.size() < 5) {
          Process child;
          child.guest = p.guest->Fork();
          child.model = p.model;
          processes.push_back(std::move(child));
        } else {
          processes.erase(processes.begin() + pick(static_cast<int>(processes.size())));
        }
        continue;  // `p` may be gone
      }
      case 5: {
        (void)mm.Madvise(addr, length, MADV_DONTNEED, nullptr);
        for (int i = first; i < first + count; ++i) {
          auto it = p.model.pages.find(i);
          if (it != p.model.pages.end() && !it->second.file) it->second.value = 0;
        }
        break;
      }
      case 6: {
        // Moves the pages onto another range when they are one area.
        const int to = pick(kPages - count + 1);
        if (to < first + count && first < to + count) break;
        Result<GuestAddr> moved = mm.Mremap(addr, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
                                            kBase + to * page_size_, p.guest->limits, nullptr);
        if (moved.ok()) {
          for (int i = 0; i < count; ++i) p.model.pages[to + i] = p.model.pages[first + i];
          for (int i = first; i < first + count; ++i) p.model.pages.erase(i);
        } else if (p.model.pages.contains(first)) {  // the target range is gone when only the source was refused
          for (int i = to; i < to + count; ++i) p.model.pages.erase(i);
        }
        break;
      }
      default: {
        for (int i = 0; i < 8; ++i) Store(p, pick(kPages), static_cast<uint8_t>(1 + pick(255)), pick(2) == 0);
        break;
      }
    }
    for (int i = 0; i < 10; ++i) CheckPage(p, pick(kPages));
    if (step % 50 == 0)
      for (Process& each : processes) Check(each);
  }
  for (Process& each : processes) Check(each);
}
INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest, testing::Combine(testing::Range(1, 9), testing::Values(1)));
INSTANTIATE_TEST_SUITE_P(LargeAreas, ModelTest, testing::Combine(testing::Range(1, 5), testing::Values(48)));

}  // namespace
}  // namespace moat
