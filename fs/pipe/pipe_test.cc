#include "fs/pipe/pipe.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <string>

namespace moat {
namespace {

class PipeTest : public testing::Test {
 protected:
  void SetUp() override {
    pipe_->AddReader();
    pipe_->AddWriter();
  }
  Result<size_t> Write(std::string_view s, bool packets = false) {
    BufferIoSource src(s.data(), s.size());
    return pipe_->Write(src, packets);
  }
  std::string Read(size_t n) {
    std::string out(n, '\0');
    BufferIoDest dst(out.data(), n);
    Result<size_t> r = pipe_->Read(dst);
    out.resize(r.ok() ? *r : 0);
    return out;
  }
  RefPtr<Pipe> pipe_ = MakeRef<Pipe>();
};

TEST_F(PipeTest, BytesComeOutInOrder) {
  std::string all;
  for (int i = 0; i < 5000; ++i) all += static_cast<char>('a' + i % 26);
  EXPECT_EQ(*Write(all), all.size());
  EXPECT_EQ(Read(1), all.substr(0, 1));
  EXPECT_EQ(Read(4500), all.substr(1, 4500));
  EXPECT_EQ(Read(100'000), all.substr(4501));
}

TEST_F(PipeTest, EmptyIsAgainAndEndWithoutWriters) {
  char c;
  BufferIoDest dst(&c, 1);
  EXPECT_EQ(pipe_->Read(dst).error(), kEAGAIN);
  pipe_->DropWriter();
  EXPECT_EQ(*pipe_->Read(dst), 0u);
}

TEST_F(PipeTest, SmallWritesAreWholeOrNothing) {
  std::string big(16 * 4096 - 10, 'x');
  EXPECT_EQ(*Write(big), big.size());
  EXPECT_EQ(Write(std::string(11, 'y')).error(), kEAGAIN);
  EXPECT_EQ(*Write(std::string(10, 'y')), 10u);
}

TEST_F(PipeTest, BigWritesArePartial) {
  std::string big(100'000, 'x');
  EXPECT_EQ(*Write(big), 65'536u);
  EXPECT_EQ(Write("z").error(), kEAGAIN);
  EXPECT_EQ(pipe_->Available(), 65'536u);
}

TEST_F(PipeTest, PacketsKeepTheirBorders) {
  EXPECT_EQ(*Write("first", true), 5u);
  EXPECT_EQ(*Write("second", true), 6u);
  EXPECT_EQ(Read(3), "fir");  // the rest of the packet is gone
  EXPECT_EQ(Read(9000), "second");
}

TEST_F(PipeTest, NoReadersIsBrokenPipe) {
  pipe_->DropReader();
  EXPECT_EQ(Write("x").error(), kEPIPE);
  EXPECT_TRUE(pipe_->Poll(false, true) & EPOLLERR);
}

TEST_F(PipeTest, CapacityRoundsUpAndRefusesToDropData) {
  EXPECT_EQ(*pipe_->SetCapacity(5000, false), 8192u);
  EXPECT_EQ(*Write(std::string(8192, 'x')), 8192u);
  EXPECT_EQ(pipe_->SetCapacity(4096, false).error(), kEBUSY);
  EXPECT_EQ(pipe_->SetCapacity(2 << 20, false).error(), kEPERM);
  EXPECT_EQ(*pipe_->SetCapacity(2 << 20, true), uint32_t{2 << 20});
}

TEST_F(PipeTest, PeekLeavesTheBytes) {
  ASSERT_TRUE(Write("hello").ok());
  char out[3];
  BufferIoDest dst(out, 3);
  EXPECT_EQ(*pipe_->Peek(dst, 1), 3u);
  EXPECT_EQ(std::string(out, 3), "ell");
  EXPECT_EQ(Read(10), "hello");
}

}  // namespace
}  // namespace moat
