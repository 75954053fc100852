// For tests of mm and the loader: a memory file, an address space without a stub, and a guest whose loads and stores go
// through it.
#ifndef MOAT_SENTRY_MM_TEST_MACHINE_H_
#define MOAT_SENTRY_MM_TEST_MACHINE_H_

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <memory>
#include <string>

#include "platform/memory/backing.h"
#include "platform/memory/safe_copy.h"
#include "sentry/mm/fake_address_space.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

class TestGuest {
 public:
  explicit TestGuest(const MmEnvironment& env)
      : space_(MakeRef<FakeAddressSpace>()), mm_(MemoryManager::Create(env, space_)) {
    mm_->SetLayout(0x7f0000000000, 0x10000000);
  }
  TestGuest(RefPtr<FakeAddressSpace> space, RefPtr<MemoryManager> mm) : space_(std::move(space)), mm_(std::move(mm)) {}

  MemoryManager& mm() { return *mm_; }
  FakeAddressSpace& space() { return *space_; }

  GuestAddr Map(uint64_t length, int prot, int flags = MAP_PRIVATE | MAP_ANONYMOUS, GuestAddr addr = 0,
                RefPtr<Mappable> mappable = nullptr, uint64_t offset = 0) {
    Result<GuestAddr> r = TryMap(length, prot, flags, addr, std::move(mappable), offset);
    EXPECT_TRUE(r.ok()) << ErrnoName(r.error());
    return r.ok() ? *r : 0;
  }
  Result<GuestAddr> TryMap(uint64_t length, int prot, int flags, GuestAddr addr = 0,
                           RefPtr<Mappable> mappable = nullptr, uint64_t offset = 0) {
    MmapRequest request;
    request.length = length;
    request.prot = prot;
    request.flags = flags;
    request.addr = addr;
    request.mappable = std::move(mappable);
    request.offset = offset;
    return mm_->Mmap(request, limits, nullptr);
  }
  // 0, or the signal that the access ends in.
  int Store(GuestAddr addr, uint8_t value) { return Access(addr, true, &value); }
  int Load(GuestAddr addr, uint8_t* value) { return Access(addr, false, value); }
  int LoadOr(GuestAddr addr) {  // the byte, or -signal
    uint8_t value = 0;
    const int signo = Load(addr, &value);
    return signo != 0 ? -signo : value;
  }
  std::unique_ptr<TestGuest> Fork() {
    auto space = MakeRef<FakeAddressSpace>();
    Result<RefPtr<MemoryManager>> child = mm_->Fork(space, nullptr);
    EXPECT_TRUE(child.ok());
    return std::make_unique<TestGuest>(space, *child);
  }
  int last_code = 0;         // si_code of the last signal
  bool known_faults = true;  // false: faults come without an error code, as ptrace reports them
  MmLimits limits;

 private:
  int Access(GuestAddr addr, bool write, uint8_t* value) {
    for (int i = 0; i < 10; ++i) {
      std::optional<FaultEvent> fault = space_->Access(addr, write, value);
      if (!fault) return 0;
      if (!known_faults) fault->trapno = 0;
      const FaultOutcome outcome = mm_->HandleFault(*fault, limits, nullptr);
      if (!outcome.resolved()) {
        last_code = outcome.si_code;
        return outcome.signo;
      }
    }
    ADD_FAILURE() << "a fault that does not end";
    return SIGKILL;
  }
  RefPtr<FakeAddressSpace> space_;
  RefPtr<MemoryManager> mm_;
};

class MmTest : public testing::Test {
 protected:
  MmTest() : commit_(1ull << 40) {
    InstallSafeCopyHandlers();
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);  // as the sentry does
    memory_ = std::move(*MemoryFile::Create(*NewMemoryBacking(), 0));
    env_.memory = memory_.get();
    env_.commit = &commit_;
  }
  void TearDown() override {
    guest_.reset();
    EXPECT_EQ(memory_->Usage(MemoryKind::kAnonymous), 0u);
    EXPECT_EQ(commit_.committed(), 0u);
  }
  TestGuest& guest() {
    if (!guest_) guest_ = std::make_unique<TestGuest>(env_);
    return *guest_;
  }
  MemoryManager& mm() { return guest().mm(); }

  std::unique_ptr<MemoryFile> memory_;
  CommitAccount commit_;
  MmEnvironment env_;
  std::unique_ptr<TestGuest> guest_;
};

// A host file as fs/hostfs donates it.
class TestFile final : public Mappable {
 public:
  explicit TestFile(std::string_view content, bool writable = true)
      : fd_(memfd_create("test-file", MFD_CLOEXEC)), writable_(writable) {
    Resize(content.size());
    EXPECT_EQ(pwrite(fd_.get(), content.data(), content.size(), 0), static_cast<ssize_t>(content.size()));
  }
  void Resize(uint64_t size) {
    size_ = size;
    EXPECT_EQ(ftruncate(fd_.get(), static_cast<off_t>(size)), 0);
  }
  int fd() const { return fd_.get(); }
  int mappings = 0;

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override {
    if (offset >= PageCeil(size_)) return kENXIO;
    HostPages pages;
    pages.fd = fd_.get();
    pages.range = {offset, offset + std::min(length, PageCeil(size_) - offset)};
    pages.writable = writable_;
    return pages;
  }
  Result<void> AddMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override {
    ++mappings;
    return {};
  }
  void RemoveMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override { --mappings; }
  Identity identity() const override { return {}; }
  Result<void> Sync(uint64_t, uint64_t) override { return {}; }

 private:
  ScopedFd fd_;
  const bool writable_;
  uint64_t size_ = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_TEST_MACHINE_H_
