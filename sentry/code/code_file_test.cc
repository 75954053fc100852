#include "sentry/code/code_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <link.h>

#include <fstream>
#include <iterator>
#include <random>

#include "platform/memory/backing.h"
#include "platform/memory/safe_copy.h"
#include "sentry/code/fake_patcher.h"
#include "sentry/code/function_table.h"

// Two functions that ask the CPU, each with its unwind information; data between them that only looks like it.
extern "C" void code_test_first();
extern "C" void code_test_second();
extern "C" const char code_test_data[], code_test_first_end[];
__asm__(
    ".text\n.balign 16\n.globl code_test_first\ncode_test_first:\n.cfi_startproc\npush %rbx\nmov $7, %eax\ncpuid\npop "
    "%rbx\nret\n"
    ".cfi_endproc\n.globl code_test_first_end\ncode_test_first_end:\n"
    ".globl code_test_data\ncode_test_data: .byte 0xb8, 7, 0, 0, 0, 0x0f, 0xa2, 0xc3\n"
    ".balign 16\n.globl code_test_second\ncode_test_second:\n.cfi_startproc\nmov $9, %eax\nmov $1, "
    "%ecx\ncpuid\nret\n.cfi_endproc\n");

namespace moat {
namespace {

std::string OwnFile() {
  std::ifstream in("/proc/self/exe", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Where in this program's file the byte at `address` comes from.
uint64_t FileOffset(const void* address) {
  struct Search {
    uintptr_t address;
    uint64_t offset = 0;
  } search = {reinterpret_cast<uintptr_t>(address)};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* arg) {
        auto& s = *static_cast<Search*>(arg);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& h = info->dlpi_phdr[i];
          const uintptr_t distance = s.address - (info->dlpi_addr + h.p_vaddr);
          if (h.p_type == PT_LOAD && distance < h.p_filesz) s.offset = h.p_offset + distance;
        }
        return 1;  // the program comes first
      },
      &search);
  return search.offset;
}

class CodeFileTest : public testing::Test {
 protected:
  CodeFileTest() : content_(OwnFile()), object_(MakeRef<ConstantObject>(content_)) {
    InstallSafeCopyHandlers();
    memory_ = std::move(*MemoryFile::Create(*NewMemoryBacking(), 0));
    store_ = std::move(*CodeStore::Create(patcher_, *memory_, FakePatcher::kTables, FakePatcher::kShared));
  }
  uint64_t TextStart() const { return PageFloor(FileOffset(reinterpret_cast<void*>(&code_test_first))); }
  uint64_t TextEnd() const { return PageCeil(FileOffset(reinterpret_cast<void*>(&code_test_second)) + 64); }
  RefPtr<const CodeImage> ScannedImage() {
    RefPtr<CodeFile> file = CodeFile::Of(*object_, *store_);
    file->ScanForTesting(*object_, TextStart(), TextEnd());
    RefPtr<const CodeImage> image;
    for (int process = 0; process < 10; ++process) image = file->NoteMapped(object_, TextStart(), TextEnd());
    return image;
  }
  // The image's byte of the file's `offset`; -1: it has none.
  int At(const CodeImage& image, uint64_t offset) {
    for (const CodeImage::Piece& p : image.pieces()) {
      if (offset >= p.start && offset < p.end)
        return static_cast<int>(*memory_->Pointer(p.memory + (offset - p.start)).value());
    }
    return -1;
  }
  // As if the program had no sorted table.
  void HideSortedTable() {
    const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(content_.data());
    const auto* headers = reinterpret_cast<const Elf64_Phdr*>(content_.data() + elf->e_phoff);
    for (int i = 0; i < elf->e_phnum; ++i) {
      if (headers[i].p_type != PT_GNU_EH_FRAME) continue;
      for (uint64_t byte = 0; byte < sizeof headers[i].p_type; ++byte)
        object_->Poke(elf->e_phoff + static_cast<uint64_t>(i) * sizeof headers[i] + byte, 0);
    }
  }
  int Own(uint64_t offset) const { return static_cast<uint8_t>(content_[offset]); }

  const std::string content_;
  FakePatcher patcher_;
  std::unique_ptr<MemoryFile> memory_;
  std::unique_ptr<CodeStore> store_;
  RefPtr<ConstantObject> object_;
};

TEST_F(CodeFileTest, RewritesWhatDecodingFunctionsFinds) {
  RefPtr<const CodeImage> image = ScannedImage();
  ASSERT_TRUE(image);
  const uint64_t first = FileOffset(reinterpret_cast<void*>(&code_test_first)) + 6;
  const uint64_t second = FileOffset(reinterpret_cast<void*>(&code_test_second)) + 10;
  const uint64_t data = FileOffset(code_test_data);
  for (uint64_t site : {first, second}) {
    EXPECT_EQ(Own(site + 1), 0xa2);
    EXPECT_EQ(At(*image, site), FakePatcher::kRewritten[0]);
    EXPECT_EQ(At(*image, site + 1), FakePatcher::kRewritten[1]);
  }
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(At(*image, data + i), Own(data + i));
  // All else in its pieces is the file's.
  std::set<uint64_t> rewritten;
  for (const auto& site : image->sites()) {
    for (const CodePatch::Piece& piece : site->originals) {
      for (size_t i = 0; i < piece.bytes.size(); ++i) {
        rewritten.insert(piece.address + i);
        EXPECT_EQ(piece.bytes[i], Own(piece.address + i));
      }
    }
  }
  for (const CodeImage::Piece& p : image->pieces()) {
    for (uint64_t at = p.start; at < std::min<uint64_t>(p.end, content_.size()); ++at) {
      if (!rewritten.contains(at)) ASSERT_EQ(At(*image, at), Own(at)) << at;
    }
  }
}

TEST_F(CodeFileTest, CallsOfManyProcessesAddUp) {
  RefPtr<const CodeImage> scanned = ScannedImage();
  RefPtr<CodeFile> file = CodeFile::Of(*object_, *store_);
  const size_t before = scanned->sites().size();
  // Not a `cpuid` to this patcher's scan, and as good as any call.
  const uint64_t behind = FileOffset(code_test_data) + 7;
  for (int process = 0; process < 15; ++process) file->NoteCalls(behind, 39, 1);
  file->BuildWantedForTesting(*object_);
  EXPECT_EQ(file->NoteMapped(object_, TextStart(), TextEnd())->sites().size(), before);
  file->NoteCalls(behind, 39, 1);
  file->BuildWantedForTesting(*object_);
  EXPECT_EQ(file->NoteMapped(object_, TextStart(), TextEnd())->sites().size(), before + 1);
  // Who has the first image keeps it.
  EXPECT_EQ(scanned->sites().size(), before);
}

TEST_F(CodeFileTest, SitesAndMemoryGoWithTheLastUser) {
  const uint64_t memory = memory_->Usage(MemoryKind::kPageCache);
  RefPtr<const CodeImage> image = ScannedImage();
  const RefPtr<const PatchSet> patches = image->patches();
  EXPECT_GE(patcher_.taken.size(), 2u);
  object_->derived = nullptr;
  image = nullptr;
  EXPECT_EQ(memory_->Usage(MemoryKind::kPageCache), memory);
  EXPECT_GE(patcher_.taken.size(), 2u);  // a process may still have them
  const_cast<RefPtr<const PatchSet>&>(patches) = nullptr;
  EXPECT_TRUE(patcher_.taken.empty());
}

TEST_F(CodeFileTest, NothingWhereBytesMayChange) {
  object_->may_change = true;
  EXPECT_FALSE(CodeFile::Of(*object_, *store_));
}

TEST_F(CodeFileTest, FindsFunctions) {
  ObjectReader reader(*object_, *memory_);
  const std::optional<FunctionTable> table = FunctionTable::Read(reader);
  ASSERT_TRUE(table);
  const uint64_t first = FileOffset(reinterpret_cast<void*>(&code_test_first));
  const uint64_t size = static_cast<uint64_t>(code_test_first_end - reinterpret_cast<const char*>(&code_test_first));
  for (uint64_t i = 0; i < size; ++i) {
    const std::optional<FunctionTable::Range> range = table->Find(reader, first + i);
    ASSERT_TRUE(range);
    EXPECT_EQ(range->start, first);
    EXPECT_EQ(range->end, first + size);
  }
  EXPECT_FALSE(table->Find(reader, FileOffset(code_test_data)));
  EXPECT_FALSE(table->Find(reader, 0));
  EXPECT_FALSE(table->Find(reader, content_.size() + 4096));
}

// A static program comes without the sorted table: its section of frames says the same.
TEST_F(CodeFileTest, FindsFunctionsByTheirFrames) {
  ObjectReader reader(*object_, *memory_);
  const std::optional<FunctionTable> table = FunctionTable::Read(reader);
  HideSortedTable();
  const std::optional<FunctionTable> frames = FunctionTable::Read(reader);
  ASSERT_TRUE(table);
  ASSERT_TRUE(frames);
  int found = 0;
  for (uint64_t offset = TextStart(); offset < TextEnd(); offset += 3) {
    const std::optional<FunctionTable::Range> a = table->Find(reader, offset), b = frames->Find(reader, offset);
    if (!b) continue;  // of another form than the usual one
    ASSERT_TRUE(a) << offset;
    EXPECT_EQ(a->start, b->start);
    EXPECT_EQ(a->end, b->end);
    ++found;
  }
  EXPECT_GT(found, 10);
  EXPECT_TRUE(frames->Find(reader, FileOffset(reinterpret_cast<void*>(&code_test_first))));
  EXPECT_FALSE(frames->Find(reader, FileOffset(code_test_data)));
  // None of either.
  const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(content_.data());
  for (uint64_t i = 0; i < elf->e_shnum * sizeof(Elf64_Shdr); ++i) object_->Poke(elf->e_shoff + i, 0);
  EXPECT_FALSE(FunctionTable::Read(reader));
}

// Headers, tables and descriptions that lie: whatever comes out lies in the file or is nothing.
TEST_F(CodeFileTest, HostileFiles) {
  std::mt19937_64 random(1);
  const uint64_t first = FileOffset(reinterpret_cast<void*>(&code_test_first));
  const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(content_.data());
  const auto* headers = reinterpret_cast<const Elf64_Phdr*>(content_.data() + elf->e_phoff);
  std::vector<std::pair<uint64_t, uint64_t>> targets = {{0, 64}, {elf->e_phoff, elf->e_phnum * sizeof(Elf64_Phdr)}};
  for (int i = 0; i < elf->e_phnum; ++i) {
    if (headers[i].p_type == PT_GNU_EH_FRAME) targets.push_back({headers[i].p_offset, headers[i].p_filesz});
  }
  ASSERT_EQ(targets.size(), 3u);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(content_.data() + elf->e_shoff);
  const char* const names = content_.data() + sections[elf->e_shstrndx].sh_offset;
  targets.push_back({elf->e_shoff, elf->e_shnum * sizeof(Elf64_Shdr)});
  for (int i = 0; i < elf->e_shnum; ++i) {
    if (std::string_view(names + sections[i].sh_name) == ".eh_frame")
      targets.push_back({sections[i].sh_offset, std::min<uint64_t>(sections[i].sh_size, 4096)});
  }
  ASSERT_EQ(targets.size(), 5u);
  ObjectReader reader(*object_, *memory_);
  for (int round = 0; round < 3000; ++round) {
    for (int i = 0; i < 4; ++i) {
      const auto& [start, size] = targets[random() % targets.size()];
      object_->Poke(start + random() % size, static_cast<char>(random()));
    }
    if (round % 10 == 0) {
      for (const auto& [start, size] : targets) {
        for (uint64_t at = start; at < start + std::min<uint64_t>(size, 512); ++at) object_->Poke(at, content_[at]);
      }
      if (round % 20 == 0) HideSortedTable();
    }
    const std::optional<FunctionTable> table = FunctionTable::Read(reader);
    if (!table) continue;
    for (uint64_t offset : {first, first + 5, uint64_t{0}, random()}) {
      const std::optional<FunctionTable::Range> range = table->Find(reader, offset);
      if (range) EXPECT_LT(range->start, range->end);
    }
  }
}

}  // namespace
}  // namespace moat
