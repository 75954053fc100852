// Mutated ELF programs and script lines against the loader's parsers: an image whose numbers hold together, or an
// errno.
#include <elf.h>
#include <gtest/gtest.h>
#include <string.h>

#include "sentry/loader/elf_image.h"
#include "sentry/loader/executable_source.h"
#include "sentry/loader/script.h"
#include "tests/fuzz/mutate.h"

namespace moat {
namespace {

constexpr int kRounds = 50'000;

class MemorySource : public ExecutableSource {
 public:
  explicit MemorySource(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<size_t> Read(void* dst, size_t n, uint64_t offset) override {
    if (offset >= bytes_.size()) return size_t{0};
    n = std::min<uint64_t>(n, bytes_.size() - offset);
    memcpy(dst, bytes_.data() + offset, n);
    return n;
  }
  Result<RefPtr<Mappable>> GetMappable() override { return Errno::kENODEV; }
  RefPtr<MappingSource> mapping_source() override { return nullptr; }

 private:
  std::string bytes_;
};

std::string SampleProgram() {
  struct {
    Elf64_Ehdr header;
    Elf64_Phdr segments[5];
    char interpreter[32];
    char code[512];
  } elf = {};
  memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
  elf.header.e_ident[EI_CLASS] = ELFCLASS64;
  elf.header.e_ident[EI_DATA] = ELFDATA2LSB;
  elf.header.e_ident[EI_VERSION] = EV_CURRENT;
  elf.header.e_type = ET_DYN;
  elf.header.e_machine = EM_X86_64;
  elf.header.e_version = EV_CURRENT;
  elf.header.e_entry = offsetof(decltype(elf), code);
  elf.header.e_phoff = offsetof(decltype(elf), segments);
  elf.header.e_ehsize = sizeof(Elf64_Ehdr);
  elf.header.e_phentsize = sizeof(Elf64_Phdr);
  elf.header.e_phnum = 5;
  strcpy(elf.interpreter, "/lib64/ld-linux-x86-64.so.2");
  elf.segments[0] = {PT_PHDR, PF_R, sizeof(Elf64_Ehdr), sizeof(Elf64_Ehdr), 0, sizeof elf.segments, sizeof elf.segments,
                     8};
  const uint64_t name = offsetof(decltype(elf), interpreter);
  elf.segments[1] = {PT_INTERP, PF_R, name, name, 0, 28, 28, 1};
  elf.segments[2] = {PT_LOAD, PF_R | PF_X, 0, 0, 0, sizeof elf, sizeof elf, 0x1000};
  elf.segments[3] = {PT_LOAD, PF_R | PF_W, 0x200, 0x1200, 0, 0x100, 0x4000, 0x1000};
  elf.segments[4] = {PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16};
  return std::string(reinterpret_cast<const char*>(&elf), sizeof elf);
}

TEST(ElfParseFuzz, SampleIsAProgram) {
  auto source = MakeRef<MemorySource>(SampleProgram());
  auto image = ElfImage::Parse(*source, false);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->segments.size(), 2u);
  EXPECT_EQ(image->interpreter, "/lib64/ld-linux-x86-64.so.2");
}

TEST(ElfParseFuzz, MutatedPrograms) {
  std::mt19937_64 random(1);
  const std::string sample = SampleProgram();
  int accepted = 0;
  for (int i = 0; i < kRounds; ++i) {
    auto source = MakeRef<MemorySource>(Mutate(sample, random));
    auto image = ElfImage::Parse(*source, i % 2 == 1);
    if (!image.ok()) continue;
    ++accepted;
    for (const ElfSegment& s : image->segments) {
      ASSERT_GE(s.vaddr + s.mem_size, s.vaddr);
      ASSERT_LE(s.file_size, s.mem_size);
      ASSERT_GE(s.vaddr, image->min_vaddr);
      ASSERT_LE(s.vaddr + s.mem_size, image->max_vaddr);
    }
    ASSERT_EQ(image->align & (image->align - 1), 0u);
    ASSERT_EQ(image->interpreter.find('\0'), std::string::npos);
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, kRounds);
}

TEST(ElfParseFuzz, MutatedScripts) {
  std::mt19937_64 random(2);
  for (int i = 0; i < kRounds; ++i) {
    std::string head = Mutate("#! /usr/bin/env -S python3 -x \nprint()\n", random);
    head.resize(std::min(head.size(), kScriptHeadBytes));
    auto line = ParseScriptLine(head);
    if (line.ok() && line->has_value()) {
      ASSERT_FALSE((*line)->interpreter.empty());
    }
  }
}

}  // namespace
}  // namespace moat
