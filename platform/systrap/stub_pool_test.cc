#include "platform/systrap/stub_pool.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "platform/systrap/address_space.h"
#include "platform/systrap/systrap_platform.h"

namespace moat::systrap_platform {
namespace {

class StubPoolTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!WhyUnavailable().empty()) GTEST_SKIP() << WhyUnavailable();
    pool_ = *StubPool::Create(nullptr);
  }
  std::unique_ptr<StubPool> pool_;
};

// The maker of a stub that was killed, and that the host has not run since, still waits on its page when the next stub
// has it already. Here a thread of ours waits in its place, and was first.
TEST_F(StubPoolTest, AnOrderForAThreadReachesTheMakerBehindADyingOne) {
  ReadyStub stub = *pool_->Take();
  // The pool makes stubs ahead, with the first free pages: one that is far enough is nobody's yet.
  const uint32_t page = stub.page + 32;
  std::atomic<uint32_t>& word = pool_->page(page).thread_order;
  std::atomic<pid_t> waiter_tid{0};
  std::thread waiter([&] {
    waiter_tid = gettid();
    const timespec limit = {20, 0};
    syscall(SYS_futex, &word, FUTEX_WAIT, 0, &limit, nullptr, 0);
  });
  const auto sleeps = [&] {
    std::ifstream stat("/proc/self/task/" + std::to_string(waiter_tid) + "/stat");
    std::string number, name, state;
    return (stat >> number >> name >> state) && state == "S";
  };
  while (waiter_tid == 0 || !sleeps()) usleep(1000);
  std::vector<ReadyStub> others;
  while (stub.page != page) {
    others.push_back(std::move(stub));
    stub = *pool_->Take();
  }
  {
    SharedSites shared;
    auto space = MakeRef<SystrapAddressSpace>(*pool_, std::move(stub), shared);
    // The second thread is the maker's to make.
    auto first = space->TakeThread();
    ASSERT_TRUE(first.ok());
    auto second = space->TakeThread();
    ASSERT_TRUE(second.ok());
    space->GiveThread(*std::move(second));
    space->GiveThread(*std::move(first));
  }
  waiter.join();
  for (const ReadyStub& other : others) pool_->Kill(other.pid);
}

}  // namespace
}  // namespace moat::systrap_platform
