// Code that processes share, in address spaces: where it is placed, and how it goes.
#include "sentry/code/code_file.h"
#include "sentry/code/fake_patcher.h"
#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

constexpr uint64_t kPages = 8, kSize = kPages * kPageSize;
constexpr uint64_t kSite = 3 * kPageSize + 100;  // where a call stands in the file
constexpr int kProt = PROT_READ | PROT_EXEC;

class CodePlaceTest : public MmTest {
 protected:
  CodePlaceTest() {
    store_ = std::move(*CodeStore::Create(patcher_, *memory_, FakePatcher::kTables, FakePatcher::kShared));
    env_.code = store_.get();
    env_.call_tables = FakePatcher::kTables;
    env_.call_tables_length = FakePatcher::kLength;
    std::string content(kSize, 'x');
    content[kSite] = 0x0f;
    content[kSite + 1] = 0x05;
    object_ = MakeRef<ConstantObject>(content);
    RefPtr<CodeFile> file = CodeFile::Of(*object_, *store_);
    for (int i = 0; i < 10; ++i) (void)file->NoteMapped(object_, 0, kSize);
    file->NoteCalls(kSite + 2, 1, 100);
    file->BuildWantedForTesting(*object_);
  }
  ~CodePlaceTest() override {
    guest_.reset();
    object_ = nullptr;
  }
  GuestAddr MapCode(TestGuest& g) { return g.Map(kSize, kProt, MAP_PRIVATE, 0, object_); }
  static int First(TestGuest& g, GuestAddr code) { return g.LoadOr(code + kSite); }
  static uint64_t ReturnSlot(TestGuest& g) {
    uint64_t value = 0;
    g.mm().ForceCopyIn(&value, FakePatcher::kTables + FakePatcher::kShared + 8, sizeof value);
    return value;
  }

  FakePatcher patcher_;
  std::unique_ptr<CodeStore> store_;
  RefPtr<ConstantObject> object_;
};

TEST_F(CodePlaceTest, ProcessesStartWithIt) {
  const GuestAddr code = MapCode(guest());
  EXPECT_EQ(First(guest(), code), FakePatcher::kRewritten[0]);
  EXPECT_EQ(guest().LoadOr(code + kSite + 1), FakePatcher::kRewritten[1]);
  EXPECT_EQ(guest().LoadOr(code + kSite + 2), 'x');
  EXPECT_EQ(ReturnSlot(guest()), code + kSite + 2);
  EXPECT_EQ(guest().LoadOr(FakePatcher::kTables + 8), 1);  // the shared table
  EXPECT_EQ(guest().Store(FakePatcher::kTables + 8, 2), SIGSEGV);
  EXPECT_EQ(guest().Store(code + kSite, 2), SIGSEGV);
  // Another process has the same pages and its own return.
  TestGuest other(env_);
  const GuestAddr elsewhere = other.Map(kSize, kProt, MAP_PRIVATE | MAP_FIXED, 0x300000000, object_);
  EXPECT_EQ(First(other, elsewhere), FakePatcher::kRewritten[0]);
  EXPECT_EQ(ReturnSlot(other), elsewhere + kSite + 2);
  EXPECT_EQ(ReturnSlot(guest()), code + kSite + 2);
  EXPECT_EQ(guest().space().Find(code + kSite)->offset, other.space().Find(elsewhere + kSite)->offset);
}

TEST_F(CodePlaceTest, TracersSeeTheFilesOwn) {
  const GuestAddr code = MapCode(guest());
  uint8_t bytes[4];
  ASSERT_EQ(mm().TracerCopyIn(bytes, code + kSite - 1, 4), 4u);
  EXPECT_EQ(memcmp(bytes, "x\x0f\x05x", 4), 0);
  EXPECT_TRUE(mm().IsCall(code + kSite));
  // A store to it takes it back, in this process only.
  TestGuest other(env_);
  const GuestAddr elsewhere = MapCode(other);
  ASSERT_EQ(mm().TracerCopyOut(code + kSite + 2, "y", 1), 1u);
  EXPECT_EQ(First(guest(), code), 0x0f);
  EXPECT_EQ(guest().LoadOr(code + kSite + 2), 'y');
  EXPECT_EQ(First(other, elsewhere), FakePatcher::kRewritten[0]);
}

TEST_F(CodePlaceTest, CodeThatIsLookedAtStaysAsItIs) {
  mm().KeepCode();
  EXPECT_EQ(First(guest(), MapCode(guest())), 0x0f);
}

TEST_F(CodePlaceTest, WritableCodeIsTheFilesOwn) {
  const GuestAddr code = MapCode(guest());
  ASSERT_TRUE(mm().Mprotect(code + 3 * kPageSize, kPageSize, PROT_READ | PROT_WRITE, guest().limits, nullptr).ok());
  EXPECT_EQ(First(guest(), code), 0x0f);
  EXPECT_EQ(guest().Store(code + kSite, 7), 0);
  EXPECT_EQ(First(guest(), code), 7);
  TestGuest other(env_);
  EXPECT_EQ(First(other, MapCode(other)), FakePatcher::kRewritten[0]);
}

TEST_F(CodePlaceTest, AFileMappedTwiceHasItOnce) {
  const GuestAddr code = MapCode(guest()), again = MapCode(guest());
  EXPECT_EQ(First(guest(), code), FakePatcher::kRewritten[0]);
  EXPECT_EQ(First(guest(), again), 0x0f);
  EXPECT_EQ(ReturnSlot(guest()), code + kSite + 2);
  // Once it is gone there, the next one has it.
  ASSERT_TRUE(mm().Munmap(code, kSize, nullptr).ok());
  const GuestAddr third = MapCode(guest());
  EXPECT_EQ(First(guest(), third), FakePatcher::kRewritten[0]);
  EXPECT_EQ(ReturnSlot(guest()), third + kSite + 2);
}

TEST_F(CodePlaceTest, PartsThatAreReplaced) {
  const GuestAddr code = MapCode(guest());
  // Other pages come and go.
  ASSERT_TRUE(mm().Munmap(code, kPageSize, nullptr).ok());
  ASSERT_TRUE(mm().Munmap(code + 5 * kPageSize, kPageSize, nullptr).ok());
  EXPECT_EQ(First(guest(), code), FakePatcher::kRewritten[0]);
  uint8_t byte = 0;
  mm().TracerCopyIn(&byte, code + kSite, 1);
  EXPECT_EQ(byte, 0x0f);
  // Its own page: what comes in its place is what a tracer sees.
  guest().Map(kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, code + 3 * kPageSize);
  EXPECT_EQ(First(guest(), code), 0);
  mm().TracerCopyIn(&byte, code + kSite, 1);
  EXPECT_EQ(byte, 0);
}

TEST_F(CodePlaceTest, ChildrenHaveIt) {
  const GuestAddr code = MapCode(guest());
  std::unique_ptr<TestGuest> child = guest().Fork();
  EXPECT_EQ(First(*child, code), FakePatcher::kRewritten[0]);
  EXPECT_EQ(ReturnSlot(*child), code + kSite + 2);
  ASSERT_TRUE(child->mm().Mprotect(code, kSize, PROT_READ | PROT_WRITE, child->limits, nullptr).ok());
  EXPECT_EQ(First(*child, code), 0x0f);
  EXPECT_EQ(First(guest(), code), FakePatcher::kRewritten[0]);
}

TEST_F(CodePlaceTest, MappingsOfAPartHaveTheirPart) {
  const GuestAddr without = guest().Map(2 * kPageSize, kProt, MAP_PRIVATE, 0, object_, 5 * kPageSize);
  EXPECT_EQ(guest().LoadOr(without), 'x');
  const GuestAddr with = guest().Map(2 * kPageSize, kProt, MAP_PRIVATE, 0, object_, 2 * kPageSize);
  EXPECT_EQ(guest().LoadOr(with + kSite - 2 * kPageSize), FakePatcher::kRewritten[0]);
  EXPECT_EQ(ReturnSlot(guest()), with + kSite - 2 * kPageSize + 2);
}

TEST_F(CodePlaceTest, NotWhereTheTablesPlaceIsTaken) {
  guest().Map(kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, FakePatcher::kTables);
  EXPECT_EQ(First(guest(), MapCode(guest())), 0x0f);
}

TEST_F(CodePlaceTest, WithoutMemoryForTheTableItIsTheFilesOwn) {
  // Tables whose own part cannot be written: it ends before the site's return.
  env_.call_tables_length = FakePatcher::kShared;
  const GuestAddr code = MapCode(guest());
  EXPECT_EQ(First(guest(), code), 0x0f);
  EXPECT_EQ(guest().LoadOr(code), 'x');
  uint8_t byte = 0;
  mm().TracerCopyIn(&byte, code + kSite, 1);
  EXPECT_EQ(byte, 0x0f);
}

TEST_F(CodePlaceTest, NotInSharedOrWritableMappings) {
  EXPECT_EQ(First(guest(), guest().Map(kSize, kProt, MAP_SHARED, 0, object_)), 0x0f);
  EXPECT_EQ(First(guest(), guest().Map(kSize, kProt | PROT_WRITE, MAP_PRIVATE, 0, object_)), 0x0f);
}

}  // namespace
}  // namespace moat
