#include "net/unix/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <cstring>

#include "net/unix/unix_gc.h"

namespace moat {
namespace {

// Stands for a file description that is an AF_UNIX socket.
struct FakeFile : RefCounted {
  explicit FakeFile(RefPtr<UnixSocket> s) : socket(std::move(s)) {}
  ~FakeFile() override { socket->Close(); }
  RefPtr<UnixSocket> socket;
};
// Stands for a descriptor in flight: one reference to the file.
struct Flight : RefCounted {
  explicit Flight(RefPtr<FakeFile> f) : file(std::move(f)) {}
  RefPtr<FakeFile> file;
};

Result<size_t> Send(UnixSocket& s, std::string_view text, UnixSocket* to = nullptr,
                    std::vector<UnixRight> rights = {}) {
  BufferIoSource src(text.data(), text.size());
  UnixSocket::SendRequest request;
  request.rights = std::move(rights);
  request.credentials = {nullptr, 7, 8};
  return s.Send(src, request, to);
}

struct Got {
  std::string text;
  UnixSocket::Received r;
};
Result<Got> Receive(UnixSocket& s, size_t max = 100, int flags = 0) {
  std::string buffer(max, '\0');
  BufferIoDest dst(buffer.data(), max);
  auto r = TRY(s.Receive(dst, flags));
  buffer.resize(r.bytes);
  return Got{buffer, std::move(r)};
}

class UnixSocketTest : public ::testing::Test {
 protected:
  RefPtr<UnixNamespace> ns = MakeRef<UnixNamespace>();
  std::pair<RefPtr<UnixSocket>, RefPtr<UnixSocket>> Pair(int type) {
    return UnixSocket::CreatePair(type, ns, {nullptr, 1, 2});
  }
};

TEST_F(UnixSocketTest, StreamCarriesBytesInOrderAndGluesWrites) {
  auto [a, b] = Pair(SOCK_STREAM);
  EXPECT_EQ(Receive(*b).error(), kEAGAIN);
  EXPECT_EQ(*Send(*a, "hello "), 6u);
  EXPECT_EQ(*Send(*a, "world"), 5u);
  EXPECT_EQ(b->InputBytes(), 11);
  EXPECT_EQ(Receive(*b, 100, MSG_PEEK)->text, "hello world");
  EXPECT_EQ(Receive(*b, 4)->text, "hell");
  EXPECT_EQ(Receive(*b)->text, "o world");
  EXPECT_EQ(a->OutputBytes(), 0);
  a->Close();
  EXPECT_EQ(Receive(*b)->text, "");
  EXPECT_EQ(Send(*b, "x").error(), kEPIPE);
  b->Close();
}

TEST_F(UnixSocketTest, StreamIsBoundedAndBecomesWritableAgain) {
  auto [a, b] = Pair(SOCK_STREAM);
  std::string block(100'000, 'x');
  size_t sent = 0;
  for (;;) {
    auto r = Send(*a, block);
    if (!r.ok()) {
      EXPECT_EQ(r.error(), kEAGAIN);
      break;
    }
    sent += *r;
  }
  EXPECT_GT(sent, 100'000u);
  EXPECT_LE(sent, static_cast<size_t>(UnixSocket::kDefaultBuffer));
  EXPECT_EQ(a->Poll(EPOLLOUT) & EPOLLOUT, 0u);
  size_t got = 0;
  while (got < sent) got += Receive(*b, 65536)->text.size();
  EXPECT_NE(a->Poll(EPOLLOUT) & EPOLLOUT, 0u);
  a->Close();
  b->Close();
}

TEST_F(UnixSocketTest, PacketsKeepTheirBoundsAndTellWhenTheyAreCut) {
  auto [a, b] = Pair(SOCK_SEQPACKET);
  EXPECT_TRUE(Send(*a, "first").ok());
  EXPECT_TRUE(Send(*a, "second").ok());
  auto got = Receive(*b, 3);
  EXPECT_EQ(got->text, "fir");
  EXPECT_EQ(got->r.length, 5u);
  EXPECT_EQ(Receive(*b)->text, "second");
  EXPECT_EQ(Send(*a, std::string(300'000, 'x')).error(), kEMSGSIZE);
  a->Close();
  EXPECT_EQ(Receive(*b)->text, "");
  b->Close();
}

TEST_F(UnixSocketTest, ListenConnectAccept) {
  auto listener = UnixSocket::Create(SOCK_STREAM, ns), client = UnixSocket::Create(SOCK_STREAM, ns);
  EXPECT_EQ(client->Connect(*listener, {}).error(), kECONNREFUSED);
  ASSERT_TRUE(listener->BindAbstract("name").ok());
  EXPECT_EQ(client->BindAbstract("name").error(), kEADDRINUSE);
  ASSERT_TRUE(listener->Listen(0, {nullptr, 10, 11}).ok());
  EXPECT_EQ(listener->Accept().error(), kEAGAIN);
  EXPECT_EQ(ns->Find("name"), listener.get());
  ASSERT_TRUE(client->Connect(*listener, {nullptr, 20, 21}).ok());
  EXPECT_EQ(client->Connect(*listener, {}).error(), kEISCONN);
  auto second = UnixSocket::Create(SOCK_STREAM, ns);
  EXPECT_EQ(second->Connect(*listener, {}).error(), kEAGAIN);  // a backlog of 0 holds one
  auto server = listener->Accept();
  ASSERT_TRUE(server.ok());
  EXPECT_EQ((*server)->peer_credentials()->uid, 20u);
  EXPECT_EQ(client->peer_credentials()->uid, 10u);
  EXPECT_EQ(*client->peer_address(), std::string_view("\0name", 5));
  EXPECT_TRUE(Send(*client, "hi").ok());
  EXPECT_EQ(Receive(**server)->text, "hi");
  ASSERT_TRUE(second->Connect(*listener, {}).ok());
  listener->Close();
  EXPECT_EQ(Receive(*second).error(), kECONNRESET);
  EXPECT_EQ(ns->Find("name"), nullptr);
  (*server)->Close();
  client->Close();
  second->Close();
}

TEST_F(UnixSocketTest, UnreadDataResetsTheConnection) {
  auto [a, b] = Pair(SOCK_STREAM);
  EXPECT_TRUE(Send(*a, "x").ok());
  b->Close();
  EXPECT_EQ(Receive(*a).error(), kECONNRESET);
  EXPECT_EQ(Receive(*a)->text, "");
  a->Close();
}

TEST_F(UnixSocketTest, DatagramsGoToNamesAndToPeers) {
  auto a = UnixSocket::Create(SOCK_DGRAM, ns), b = UnixSocket::Create(SOCK_DGRAM, ns);
  ASSERT_TRUE(b->Autobind().ok());
  EXPECT_EQ(b->address().size(), 6u);
  EXPECT_EQ(Send(*a, "x").error(), kENOTCONN);
  EXPECT_TRUE(Send(*a, "to", b.get()).ok());
  ASSERT_TRUE(a->BindPath("/a").ok());
  ASSERT_TRUE(a->Connect(*b, {}).ok());
  EXPECT_TRUE(Send(*a, "").ok());
  EXPECT_EQ(Receive(*b)->r.source, "");
  auto got = Receive(*b);
  EXPECT_EQ(got->text, "");
  EXPECT_EQ(got->r.source, "/a");
  b->Close();
  EXPECT_EQ(Send(*a, "x").error(), kECONNREFUSED);
  EXPECT_EQ(Send(*a, "x").error(), kENOTCONN);
  a->Close();
}

TEST_F(UnixSocketTest, FullDatagramQueueBlocksUntilARead) {
  auto a = UnixSocket::Create(SOCK_DGRAM, ns), b = UnixSocket::Create(SOCK_DGRAM, ns);
  ASSERT_TRUE(a->Connect(*b, {}).ok());
  a->SetSendBuffer(1 << 30);
  Result<size_t> r = size_t{0};
  int count = 0;
  while ((r = Send(*a, "x")).ok()) ++count;
  EXPECT_EQ(r.error(), kEAGAIN);
  EXPECT_EQ(count, static_cast<int>(UnixSocket::kMaxDatagrams) + 1);
  EXPECT_EQ(a->Poll(EPOLLOUT) & EPOLLOUT, 0u);
  EXPECT_TRUE(Receive(*b).ok());
  EXPECT_TRUE(Send(*a, "x").ok());
  a->Close();
  b->Close();
}

TEST_F(UnixSocketTest, ShutdownIsSeenByThePeer) {
  auto [a, b] = Pair(SOCK_STREAM);
  ASSERT_TRUE(a->Shutdown(SHUT_WR).ok());
  EXPECT_EQ(Send(*a, "x").error(), kEPIPE);
  EXPECT_EQ(Receive(*b)->text, "");
  EXPECT_NE(b->Poll(EPOLLRDHUP) & EPOLLRDHUP, 0u);
  EXPECT_EQ(b->Poll(EPOLLHUP) & EPOLLHUP, 0u);
  EXPECT_TRUE(Send(*b, "back").ok());
  EXPECT_EQ(Receive(*a)->text, "back");
  EXPECT_EQ(a->Shutdown(7).error(), kEINVAL);
  a->Close();
  b->Close();
}

TEST_F(UnixSocketTest, RightsComeWithTheirBytesAndSplitReads) {
  auto [a, b] = Pair(SOCK_STREAM);
  RefPtr<RefCounted> object = MakeRef<UnixEvents>();
  EXPECT_TRUE(Send(*a, "one").ok());
  EXPECT_TRUE(Send(*a, "two", nullptr, {UnixRight{object}}).ok());
  EXPECT_TRUE(Send(*a, "three").ok());
  auto got = Receive(*b);
  EXPECT_EQ(got->text, "one");
  EXPECT_TRUE(got->r.rights.empty());
  EXPECT_EQ(Receive(*b, 100, MSG_PEEK)->r.rights.size(), 1u);
  got = Receive(*b);
  EXPECT_EQ(got->text, "two");
  ASSERT_EQ(got->r.rights.size(), 1u);
  EXPECT_EQ(got->r.rights[0].object, object.get());
  EXPECT_EQ(Receive(*b)->text, "three");
  a->Close();
  b->Close();
}

TEST_F(UnixSocketTest, ASocketSentOverItselfIsCollected) {
  auto [a, b] = Pair(SOCK_STREAM);
  RefPtr<FakeFile> fa = MakeRef<FakeFile>(a), fb = MakeRef<FakeFile>(b);
  auto right = [](RefPtr<FakeFile> f) {
    UnixRight r;
    r.identity = f.get();
    r.socket = f->socket.get();
    r.object = MakeRef<Flight>(std::move(f));
    return r;
  };
  std::vector<UnixRight> rights;
  rights.push_back(right(fb));  // b's queue will hold b
  EXPECT_TRUE(Send(*a, "x", nullptr, std::move(rights)).ok());
  EXPECT_TRUE(UnixGc::Get().AnyInFlight());
  UnixGc::Get().Collect();
  EXPECT_TRUE(UnixGc::Get().AnyInFlight());  // still held by fb
  fb = nullptr;
  UnixGc::Get().Collect();
  EXPECT_FALSE(UnixGc::Get().AnyInFlight());
  EXPECT_EQ(Send(*a, "x").error(), kEPIPE);
}

}  // namespace
}  // namespace moat
