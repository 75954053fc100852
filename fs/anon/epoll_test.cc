#include "fs/anon/epoll.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "fs/anon/eventfd.h"
#include "fs/anon/timerfd.h"

namespace moat {
namespace {
constexpr Errno kOK = Errno::kOK;

class EpollTest : public ::testing::Test {
 protected:
  RefPtr<EpollFile> epoll = MakeRef<EpollFile>();
  RefPtr<EventFd> event = MakeRef<EventFd>(0u, EFD_NONBLOCK);

  Errno Add(EpollFile& ep, RefPtr<File> f, uint32_t events, int fd = 3) {
    abi::EpollEvent e;
    e.events = events;
    e.data = static_cast<uint64_t>(fd);
    return ep.Control(EPOLL_CTL_ADD, fd, std::move(f), e, true).error();
  }
  // The events of one wait, by data; empty for kEAGAIN.
  std::vector<uint32_t> Wait(EpollFile& ep, size_t max = 10) {
    std::vector<abi::EpollEvent> out;
    std::vector<uint32_t> events;
    if (ep.Collect(max, out).ok()) {
      for (auto& e : out) events.push_back(e.events);
    }
    return events;
  }
  // Takes what the counter has, without a context: eventfd needs none.
  void Drain() {
    uint64_t v;
    BufferIoDest dst(&v, sizeof v);
    alignas(VfsContext) char none[sizeof(VfsContext)];
    EXPECT_TRUE(event->Read(*reinterpret_cast<VfsContext*>(none), dst).ok());
  }
  using Events = std::vector<uint32_t>;
};

TEST_F(EpollTest, LevelTriggeredReportsUntilItIsRead) {
  EXPECT_EQ(Add(*epoll, event, EPOLLIN), kOK);
  EXPECT_EQ(Add(*epoll, event, EPOLLIN), kEEXIST);
  EXPECT_EQ(Wait(*epoll), Events());
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
  Drain();
  EXPECT_EQ(Wait(*epoll), Events());
}

TEST_F(EpollTest, EdgeTriggeredReportsEachEventOnce) {
  EXPECT_EQ(Add(*epoll, event, EPOLLIN | EPOLLET), kOK);
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
  EXPECT_EQ(Wait(*epoll), Events());
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
}

TEST_F(EpollTest, OneShotIsDisabledUntilModified) {
  EXPECT_EQ(Add(*epoll, event, EPOLLIN | EPOLLONESHOT), kOK);
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events());
  abi::EpollEvent e;
  e.events = EPOLLIN | EPOLLONESHOT;
  EXPECT_TRUE(epoll->Control(EPOLL_CTL_MOD, 3, event, e, true).ok());
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
}

TEST_F(EpollTest, ItemsGoWithTheirFile) {
  EXPECT_EQ(Add(*epoll, event, EPOLLIN, 3), kOK);
  EXPECT_EQ(Add(*epoll, event, EPOLLIN, 4), kOK);
  event->Signal();
  EXPECT_EQ(Wait(*epoll).size(), 2u);
  EXPECT_EQ(Wait(*epoll, 1).size(), 1u);
  event = nullptr;
  EXPECT_EQ(Wait(*epoll), Events());
}

TEST_F(EpollTest, DeleteForgets) {
  EXPECT_EQ(epoll->Control(EPOLL_CTL_DEL, 3, event, {}, true).error(), kENOENT);
  EXPECT_EQ(Add(*epoll, event, EPOLLIN), kOK);
  event->Signal();
  EXPECT_TRUE(epoll->Control(EPOLL_CTL_DEL, 3, event, {}, true).ok());
  EXPECT_EQ(Wait(*epoll), Events());
}

TEST_F(EpollTest, NestsAndRefusesLoops) {
  auto outer = MakeRef<EpollFile>();
  EXPECT_EQ(Add(*outer, epoll, EPOLLIN), kOK);
  EXPECT_EQ(Add(*epoll, event, EPOLLIN), kOK);
  EXPECT_EQ(Wait(*outer), Events());
  event->Signal();
  EXPECT_EQ(Wait(*outer), Events{EPOLLIN});
  EXPECT_EQ(Add(*epoll, outer, EPOLLIN), kELOOP);
  EXPECT_EQ(Add(*epoll, epoll, EPOLLIN), kEINVAL);
  RefPtr<EpollFile> deep = outer;
  std::vector<RefPtr<EpollFile>> chain;
  Errno last = kOK;
  for (int i = 0; i < 6 && last == kOK; ++i) {
    chain.push_back(MakeRef<EpollFile>());
    last = Add(*chain.back(), deep, EPOLLIN);
    deep = chain.back();
  }
  EXPECT_EQ(last, kELOOP);
}

TEST_F(EpollTest, ExclusiveHasItsRules) {
  EXPECT_EQ(Add(*epoll, event, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT), kEINVAL);
  EXPECT_EQ(Add(*epoll, event, EPOLLIN | EPOLLEXCLUSIVE), kOK);
  abi::EpollEvent e;
  e.events = EPOLLIN;
  EXPECT_EQ(epoll->Control(EPOLL_CTL_MOD, 3, event, e, true).error(), kEINVAL);
  event->Signal();
  EXPECT_EQ(Wait(*epoll), Events{EPOLLIN});
}

TEST_F(EpollTest, TimerExpiresAndCountsIntervals) {
  auto timer = MakeRef<TimerFd>(CLOCK_MONOTONIC, 0);
  EXPECT_EQ(Add(*epoll, timer, EPOLLIN), kOK);
  timer->SetTime(0, {5'000'000, 1'000'000});
  Deadline end = DeadlineAfter(5 * kNanosPerSec);
  while (Wait(*epoll).empty()) ASSERT_LT(MonotonicNow(), end);
  Nanos since = MonotonicNow();
  while (MonotonicNow() < since + 20'000'000) {
  }
  uint64_t ticks = 0;
  BufferIoDest dst(&ticks, sizeof ticks);
  alignas(VfsContext) char none[sizeof(VfsContext)];
  ASSERT_TRUE(timer->Read(*reinterpret_cast<VfsContext*>(none), dst).ok());
  EXPECT_GE(ticks, 20u);
  TimerFd::Setting old = timer->SetTime(0, {});
  EXPECT_EQ(old.interval, 1'000'000);
  EXPECT_EQ(timer->GetTime().value, 0);
}

}  // namespace
}  // namespace moat
