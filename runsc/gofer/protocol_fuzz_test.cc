// Garbage on both ends of the protocol: neither a hostile sentry nor a hostile gofer may crash or fool the other.
// Each test runs for a bounded time; the seed is printed and may be set with MOAT_FUZZ_SEED.
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <random>

#include "fs/hostfs/wire.h"
#include "runsc/gofer/gofer_for_test.h"
#include "runsc/gofer/server.h"

namespace moat {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBudget{1500};
constexpr std::chrono::seconds kPatience{30};

uint64_t Seed() {
  const char* given = getenv("MOAT_FUZZ_SEED");
  uint64_t seed = given != nullptr ? strtoull(given, nullptr, 0) : std::random_device{}();
  testing::Test::RecordProperty("seed", std::to_string(seed));
  printf("seed %lu\n", static_cast<unsigned long>(seed));
  return seed;
}

struct Pair {
  Pair() {
    int ends[2];
    EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    a.Reset(ends[0]);
    b.Reset(ends[1]);
  }
  ScopedFd a, b;
};

class Garbage {
 public:
  explicit Garbage(uint64_t seed) : random_(seed) {}
  uint64_t Below(uint64_t n) { return random_() % n; }
  // Numbers that programs trip over.
  uint64_t Number() {
    static constexpr uint64_t kEdges[] = {0,          1,          2,    3,          16,        17,
                                          255,        256,        4095, 4096,       65535,     65536,
                                          0x7fffffff, 0x80000000, ~0u,  1ull << 32, INT64_MAX, ~uint64_t{0}};
    return Below(3) == 0 ? random_() : kEdges[Below(std::size(kEdges))];
  }
  std::string Bytes(size_t n) {
    std::string out(n, '\0');
    for (char& c : out) c = static_cast<char>(Below(4) == 0 ? random_() : "./ab\0"[Below(5)]);
    return out;
  }
  template <typename T>
  void Fill(T& t) {
    auto* p = reinterpret_cast<unsigned char*>(&t);
    for (size_t i = 0; i < sizeof t; ++i) p[i] = static_cast<unsigned char>(random_());
  }

 private:
  std::mt19937_64 random_;
};

// A request that is well framed in most cases and senseless in all others.
std::string HostileRequest(Garbage& g) {
  gofer::Request r = {};
  if (g.Below(4) == 0) g.Fill(r);
  r.op = static_cast<uint16_t>(g.Below(20) == 0 ? g.Number() : 1 + g.Below(static_cast<uint64_t>(gofer::Op::kOpCount)));
  r.version = g.Below(50) == 0 ? 7 : gofer::kProtocolVersion;
  // Handles of the first objects that a connection makes: generation 1, small index.
  r.handle = g.Below(5) == 0 ? g.Number() : (uint64_t{1} << 32 | (1 + g.Below(6)));
  r.handle2 = g.Below(5) == 0 ? g.Number() : (uint64_t{1} << 32 | (1 + g.Below(6)));
  r.value = g.Number();
  r.value2 = g.Number();
  r.flags = static_cast<uint32_t>(g.Below(2) == 0 ? g.Below(4) : g.Number());
  r.mask = static_cast<uint32_t>(g.Below(2) == 0 ? g.Below(256) : g.Number());
  r.mode = static_cast<uint32_t>(g.Number());
  r.uid = r.gid = static_cast<uint32_t>(g.Number());
  r.count = static_cast<uint32_t>(g.Below(2) == 0 ? g.Below(4) : g.Number());
  if (static_cast<gofer::Op>(r.op) == gofer::Op::kAttach) r.value = g.Below(3);
  // No huge files: the test shares its disk.
  if (static_cast<gofer::Op>(r.op) == gofer::Op::kSetAttr) r.value &= 0xffff;
  if (static_cast<gofer::Op>(r.op) == gofer::Op::kAllocate) r.value &= 0xffff, r.value2 &= 0xffff;
  // The whole file system is the machine's.
  if (static_cast<gofer::Op>(r.op) == gofer::Op::kSync && r.flags == 2) r.flags = 1;
  std::string name, data = g.Bytes(g.Below(3) == 0 ? g.Below(300) : 0);
  bool names = static_cast<gofer::Op>(r.op) == gofer::Op::kWalk || static_cast<gofer::Op>(r.op) == gofer::Op::kLookUp;
  if (names && g.Below(4) != 0) {
    data.clear();
    if (static_cast<gofer::Op>(r.op) == gofer::Op::kLookUp && g.Below(4) == 0) r.count = 60 + g.Below(8);
    for (uint32_t i = 0; i < r.count % 80; ++i) {
      std::string one = g.Below(2) == 0 ? "file" : g.Bytes(g.Below(6));
      uint16_t length = static_cast<uint16_t>(g.Below(10) == 0 ? g.Number() : one.size());
      name.append(reinterpret_cast<const char*>(&length), sizeof length).append(one);
    }
  } else {
    static const char* const kNames[] = {"file", "dir", "link", "..", ".", "../outside", "user.x", ""};
    name = g.Below(3) == 0 ? g.Bytes(g.Below(300)) : kNames[g.Below(std::size(kNames))];
  }
  r.name_length = static_cast<uint32_t>(g.Below(40) == 0 ? g.Number() : name.size());
  r.data_length = static_cast<uint32_t>(g.Below(40) == 0 ? g.Number() : data.size());
  std::string packet(sizeof r, '\0');
  packet += name + data;
  r.length = static_cast<uint32_t>(g.Below(40) == 0 ? g.Number() : packet.size());
  memcpy(packet.data(), &r, sizeof r);
  if (g.Below(60) == 0) packet.resize(g.Below(packet.size()) + 1);
  return packet;
}

TEST(ProtocolFuzz, TheGoferSurvivesAHostileSentry) {
  Garbage g(Seed());
  TempTree tree;
  tree.Write("outside", "untouched");
  std::filesystem::create_directories(tree / "root/dir");
  tree.Write("root/file", "contents");
  std::filesystem::create_symlink("../outside", tree / "root/link");
  std::vector<GoferMount> mounts;
  mounts.push_back(MountOf(tree / "root"));
  mounts.push_back(MountOf(tree / "root", true));
  ScopedFd proc(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  auto end = steady_clock::now() + kBudget;
  int requests = 0, connections = 0;
  while (steady_clock::now() < end) {
    ++connections;
    gofer::Server server(mounts);
    Pair pair;
    std::thread thread([&] {
      if (gofer::Server::PrepareThread(proc.get()).ok()) server.Serve(pair.b.get());
      pair.b.Reset();
    });
    std::thread assistant([&] {
      if (gofer::Server::PrepareThread(proc.get()).ok()) server.Assist();
    });
    // Something to work with: the first handles are the two roots.
    for (int i = 0; i < 200; ++i, ++requests) {
      std::string packet = HostileRequest(g);
      iovec part = {packet.data(), packet.size()};
      if (!gofer::SendPacket(pair.a.get(), std::span(&part, 1), g.Below(100) == 0 ? 0 : -1).ok()) break;
      gofer::Reply reply;
      static std::byte payload[gofer::kMaxPayload];
      iovec in[2] = {{&reply, sizeof reply}, {payload, sizeof payload}};
      gofer::ReceivedFds fds;
      Result<size_t> n = gofer::ReceivePacket(pair.a.get(), in, gofer::kMaxLookUp, fds);
      if (!n.ok() || *n == 0) break;
      ASSERT_GE(*n, sizeof reply);
      ASSERT_EQ(reply.length, *n);
    }
    pair.a.Reset();
    thread.join();
    server.StopAssisting();
    assistant.join();
  }
  printf("%d requests on %d connections\n", requests, connections);
  EXPECT_EQ("untouched", tree.Read("outside"));
  int outside = 0;
  for (auto& unused : std::filesystem::directory_iterator(tree.path())) (void)unused, ++outside;
  EXPECT_EQ(2, outside);  // "outside" and "root"
}

// `count` copies of a descriptor, however many that is.
bool SendWithFds(int socket, std::span<iovec> parts, size_t count) {
  alignas(cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  if (count != 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memset(CMSG_DATA(c), 0, count * sizeof(int));  // descriptor 0, all of them
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) >= 0;
}

std::string HostileEntry(Garbage& g) {
  gofer::DirEntry e = {};
  std::string name = g.Bytes(1 + g.Below(5));
  e.name_length = static_cast<uint16_t>(g.Below(10) == 0 ? g.Number() : name.size());
  e.next = static_cast<int64_t>(g.Number());
  return std::string(reinterpret_cast<const char*>(&e), sizeof e).append(name);
}

// Records of a lookup, most of them good; `fds` is how many descriptors they speak of.
std::string HostileLookUp(Garbage& g, uint32_t count, size_t& fds) {
  std::string payload;
  for (uint32_t i = 0; i < count; ++i) {
    gofer::Found f = {};
    if (g.Below(50) == 0) g.Fill(f);
    std::string target;
    if (g.Below(4) == 0) {
      f.error = static_cast<int32_t>(g.Below(20) == 0 ? g.Number() : ENOENT);
    } else {
      f.handle = g.Below(30) == 0 ? 0 : g.Number() | 1;
      f.attr.mode = g.Below(3) == 0 ? S_IFLNK | 0777 : S_IFREG | 0644;
      if (S_ISLNK(f.attr.mode)) target = g.Bytes(g.Below(20));
      if (g.Below(4) == 0) {
        f.attr.mode = S_IFDIR | 0755;
        f.listing = static_cast<uint8_t>(g.Below(20) == 0 ? g.Number() : 2 * g.Below(2) + 1);
        for (uint64_t n = g.Below(4); n > 0; --n) target += HostileEntry(g);
      }
      f.has_fd = static_cast<uint8_t>(g.Below(40) == 0 ? g.Number() : S_ISREG(f.attr.mode) && g.Below(2) == 0);
      fds += f.has_fd != 0;
    }
    f.extra_length = static_cast<uint16_t>(g.Below(40) == 0 ? g.Number() : target.size());
    payload.append(reinterpret_cast<const char*>(&f), sizeof f).append(target);
  }
  return payload;
}

// What a hostile gofer answers: replies that are right in some places.
void HostileGofer(int socket, uint64_t seed) {
  Garbage g(seed);
  static thread_local std::byte buffer[gofer::kMaxPayload];
  for (;;) {
    gofer::Request request;
    iovec in[2] = {{&request, sizeof request}, {buffer, sizeof buffer}};
    gofer::ReceivedFds unwanted;
    Result<size_t> n = gofer::ReceivePacket(socket, in, 1, unwanted);
    if (!n.ok() || *n == 0) return;
    gofer::Reply reply = {};
    if (g.Below(4) == 0) g.Fill(reply);
    reply.op = g.Below(30) == 0 ? static_cast<uint16_t>(g.Number()) : request.op;
    reply.sequence = g.Below(30) == 0 ? g.Number() : request.sequence;
    reply.error = g.Below(4) == 0 ? static_cast<int32_t>(g.Number()) : 0;
    reply.count = static_cast<uint32_t>(g.Below(2) == 0 ? g.Below(4) : g.Number());
    reply.handle = g.Number();
    reply.value = g.Below(2) == 0 ? 1 : g.Number();
    if (g.Below(3) != 0) {
      reply.attr.mode = g.Below(2) == 0 ? S_IFREG | 0644 : S_IFLNK | 0777;
      reply.attr.size = g.Below(2) == 0 ? 10 : g.Number();
      reply.attr.blksize = 4096;
    }
    std::string payload;
    size_t fds = 0;
    if (static_cast<gofer::Op>(request.op) == gofer::Op::kReaddir && g.Below(4) != 0) {
      for (uint32_t i = 0; i < reply.count % 8; ++i) payload += HostileEntry(g);
    } else if (static_cast<gofer::Op>(request.op) == gofer::Op::kLookUp && g.Below(4) != 0) {
      reply.count = static_cast<uint32_t>(g.Below(20) == 0 ? 0 : 1 + g.Below(request.count + (g.Below(20) == 0)));
      reply.error = 0;
      payload = HostileLookUp(g, reply.count, fds);
    } else if (g.Below(2) == 0) {
      payload = g.Bytes(g.Below(6) * sizeof(gofer::WalkStep) + g.Below(40));
    }
    if (fds == 0) fds = g.Below(2);
    if (g.Below(30) == 0) fds = g.Below(200);
    reply.fd_count = static_cast<uint16_t>(g.Below(20) == 0 ? g.Number() : fds);
    if (g.Below(30) == 0) fds = g.Below(200);
    reply.length = static_cast<uint32_t>(g.Below(30) == 0 ? g.Number() : sizeof reply + payload.size());
    iovec out[2] = {{&reply, g.Below(40) == 0 ? g.Below(sizeof reply) + 1 : sizeof reply},
                    {payload.data(), payload.size()}};
    if (!SendWithFds(socket, out, fds)) return;
  }
}

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

TEST(ProtocolFuzz, TheSentrySurvivesAHostileGofer) {
  uint64_t seed = Seed();
  Garbage g(seed);
  auto end = steady_clock::now() + kBudget;
  int calls = 0, found_files = 0;
  size_t descriptors = OpenDescriptors();
  // On a busy machine for as long as it takes to get what is looked at.
  const auto more_time = [&] {
    const auto now = steady_clock::now();
    return now < end || (found_files == 0 && now < end + kPatience);
  };
  while (more_time()) {
    Pair pair;
    std::thread thread([&, s = ++seed] {
      HostileGofer(pair.b.get(), s);
      pair.b.Reset();
    });
    std::vector<ScopedFd> sockets;
    sockets.push_back(std::move(pair.a));
    RefPtr<GoferClient> client = GoferClient::Create(std::move(sockets)).value();
    for (int i = 0; i < 500 && !client->dead(); ++i, ++calls) {
      std::string_view names[3] = {"a", "b", "c"};
      switch (g.Below(18)) {
        case 0:
          (void)client->Attach(0);
          break;
        case 1:
          (void)client->Walk(1, std::span(names, 1 + g.Below(3)));
          break;
        case 2:
          (void)client->GetAttr(1);
          break;
        case 3:
          (void)client->Open(1, O_RDONLY);
          break;
        case 4:
          (void)client->Create(1, "x", {});
          break;
        case 5:
          (void)client->Readlink(1);
          break;
        case 6:
          (void)client->StatFileSystem(1);
          break;
        case 7:
          (void)client->GetXattr(1, "user.x");
          break;
        case 8:
          (void)client->ListXattr(1);
          break;
        case 9:
          (void)client->Seek(1, 0, SEEK_DATA);
          break;
        case 10:
          (void)client->Sync(1, GoferClient::SyncKind::kFile);
          break;
        case 11:
          (void)client->Unlink(1, "x", 2, false);
          break;
        case 12:
        case 13:
        case 14:
        case 15: {
          std::vector<std::string_view> many(1 + g.Below(gofer::kMaxLookUp), "name");
          uint32_t flags = static_cast<uint32_t>(g.Below(4));
          auto found = client->LookUp(1, many, flags);
          if (!found.ok()) break;
          ASSERT_LE(found->size(), many.size());
          for (const GoferClient::Found& f : *found) {
            ASSERT_EQ(f.error == Errno::kOK, f.handle != 0);
            ASSERT_TRUE(f.target.empty() || S_ISLNK(f.attr.mode));
            ASSERT_TRUE(!f.fd.valid() || ((flags & gofer::kDonate) != 0 && S_ISREG(f.attr.mode)));
            ASSERT_TRUE(!f.listing.at_end || ((flags & gofer::kList) != 0 && S_ISDIR(f.attr.mode)));
            found_files += f.fd.valid();
          }
          break;
        }
        default: {
          Result<GoferClient::Listing> listing = client->Readdir(1, 0);
          if (!listing.ok()) break;
          for (const GoferClient::Entry& e : listing->entries) {
            ASSERT_FALSE(e.name.empty());
            ASSERT_EQ(std::string::npos, e.name.find('/'));
            ASSERT_GE(e.next, 0);
          }
        }
      }
    }
    client.reset();
    thread.join();
  }
  printf("%d calls, %d descriptors\n", calls, found_files);
  EXPECT_GT(found_files, 0);
  EXPECT_EQ(descriptors, OpenDescriptors());
}

}  // namespace
}  // namespace moat
