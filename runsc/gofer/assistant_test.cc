#include "runsc/gofer/assistant.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace moat::gofer {
namespace {

constexpr uint32_t kJobs = 64;

class Assisted {
 public:
  Assisted() : thread_([this] { assistant_.Work(); }) {}
  ~Assisted() {
    assistant_.Stop();
    thread_.join();
  }
  Assistant& operator*() { return assistant_; }
  std::thread::id thread() const { return thread_.get_id(); }

 private:
  Assistant assistant_;
  std::thread thread_;
};

// Not atomic: when Share returns, what other threads did must be there.
using Counts = std::array<int, kJobs>;

Counts Share(Assistant& assistant, uint32_t jobs) {
  Counts counts = {};
  assistant.Share(jobs, [&](uint32_t i) { ++counts[i]; });
  return counts;
}

void ExpectEachOnce(const Counts& counts, uint32_t jobs) {
  for (uint32_t i = 0; i < kJobs; ++i) EXPECT_EQ(i < jobs ? 1 : 0, counts[i]) << i;
}

TEST(AssistantTest, WithoutAThread) {
  Assistant assistant;
  ExpectEachOnce(Share(assistant, kJobs), kJobs);
}

TEST(AssistantTest, EachJobOnce) {
  Assisted assisted;
  for (int round = 0; round < 300; ++round) {
    for (uint32_t jobs : {0u, 1u, Assistant::kMany - 1, Assistant::kMany, kJobs}) {
      ExpectEachOnce(Share(*assisted, jobs), jobs);
    }
  }
}

TEST(AssistantTest, ItTakesItsShareAndIsWaitedFor) {
  Assisted assisted;
  std::set<std::thread::id> by;
  // It may be late: on a machine that is busy it will come some time.
  for (int round = 0; round < 1000 && !by.contains(assisted.thread()); ++round) {
    std::array<std::thread::id, kJobs> ran = {};
    (*assisted).Share(kJobs, [&](uint32_t i) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      ran[i] = std::this_thread::get_id();
    });
    by = {ran.begin(), ran.end()};
    EXPECT_FALSE(by.contains(std::thread::id()));
  }
  EXPECT_TRUE(by.contains(assisted.thread()));
  EXPECT_TRUE(by.contains(std::this_thread::get_id()));
}

TEST(AssistantTest, SeveralAtATime) {
  Assisted assisted;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 3000; ++round) ExpectEachOnce(Share(*assisted, 20), 20);
    });
  }
  for (std::thread& t : threads) t.join();
}

TEST(AssistantTest, StoppedBeforeItBegan) {
  Assistant assistant;
  assistant.Stop();
  assistant.Work();
  ExpectEachOnce(Share(assistant, kJobs), kJobs);
}

}  // namespace
}  // namespace moat::gofer
