#include "sentry/loader/loader.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "sentry/loader/script.h"
#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

// An executable in memory.
class TestExecutable final : public ExecutableSource {
 public:
  explicit TestExecutable(std::string bytes) : bytes_(std::move(bytes)), file_(MakeRef<TestFile>(bytes_)) {}
  Result<size_t> Read(void* dst, size_t n, uint64_t offset) override {
    if (offset >= bytes_.size()) return size_t{0};
    n = std::min(n, bytes_.size() - offset);
    memcpy(dst, bytes_.data() + offset, n);
    return n;
  }
  Result<RefPtr<Mappable>> GetMappable() override { return RefPtr<Mappable>(file_); }
  RefPtr<MappingSource> mapping_source() override { return MakeRef<NamedMappingSource>("/test"); }

 private:
  std::string bytes_;
  RefPtr<TestFile> file_;
};

class TestOpener final : public ExecutableOpener {
 public:
  Result<RefPtr<ExecutableSource>> OpenExecutable(std::string_view path) override {
    auto it = files.find(std::string(path));
    if (it == files.end()) return kENOENT;
    return RefPtr<ExecutableSource>(MakeRef<TestExecutable>(it->second));
  }
  std::map<std::string, std::string> files;
};

// A small program: code, data with a bss, and optionally an interpreter.
struct Builder {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  std::string tail;  // from file offset 0x1000

  Builder() {
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = 0x1010;
    header.e_phoff = sizeof header;
    header.e_ehsize = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    Add(PT_LOAD, PF_R, 0, 0, 0x400, 0x400);
    Add(PT_LOAD, PF_R | PF_X, 0x1000, 0x1000, 0x100, 0x100);
    Add(PT_LOAD, PF_R | PF_W, 0x2080, 0x3080, 0x100, 0x3000);
    tail.assign(0x1000, 'C');
    tail.append(0x1000, 'D');
  }
  void Add(uint32_t type, uint32_t flags, uint64_t offset, uint64_t vaddr, uint64_t file_size, uint64_t mem_size) {
    Elf64_Phdr h{};
    h.p_type = type;
    h.p_flags = flags;
    h.p_offset = offset;
    h.p_vaddr = vaddr;
    h.p_filesz = file_size;
    h.p_memsz = mem_size;
    h.p_align = kPageSize;
    segments.push_back(h);
  }
  std::string Bytes() const {
    Elf64_Ehdr h = header;
    if (h.e_phnum == 0) h.e_phnum = static_cast<uint16_t>(segments.size());
    std::string out(0x1000, '\0');
    memcpy(out.data(), &h, sizeof h);
    memcpy(out.data() + sizeof h, segments.data(),
           std::min(segments.size() * sizeof(Elf64_Phdr), out.size() - sizeof h));
    return out + tail;
  }
};

class LoaderTest : public MmTest {
 protected:
  Result<PreparedImage> Prepare(std::string bytes, std::vector<std::string> argv = {"prog"}) {
    ImageRequest request;
    request.executable = MakeRef<TestExecutable>(std::move(bytes));
    request.filename = "/bin/prog";
    request.argv = std::move(argv);
    request.envp = {"A=1", "B=2"};
    return PrepareImage(std::move(request), guest().limits, opener_);
  }
  Result<LoadedImage> Load(const PreparedImage& image, bool randomize = false) {
    ImageIdentity identity;
    identity.uid = 1000;
    identity.randomize = randomize;
    std::mt19937_64 rng(7);
    for (uint64_t& r : identity.random) r = rng();
    return LoadImage(image, identity, mm(), guest().limits, nullptr);
  }
  Errno PrepareError(const Builder& b) { return Prepare(b.Bytes()).error(); }
  // Preparing or loading; whichever refuses first.
  Errno AnyError(const std::string& bytes) {
    Result<PreparedImage> image = Prepare(bytes);
    if (!image.ok()) return image.error();
    return Load(*image).error();
  }
  uint64_t Word(GuestAddr a) {
    uint64_t w = 0;
    EXPECT_EQ(mm().CopyIn(&w, a, sizeof w), sizeof w);
    return w;
  }
  std::string String(GuestAddr a) {
    std::string s;
    for (char c; mm().CopyIn(&c, a++, 1) == 1 && c != 0;) s += c;
    return s;
  }

  TestOpener opener_;
};

TEST_F(LoaderTest, MapsSegmentsAndClearsBss) {
  const PreparedImage image = *Prepare(Builder().Bytes());
  const LoadedImage loaded = *Load(image);
  const GuestAddr base = loaded.entry - 0x1010;
  EXPECT_EQ(guest().LoadOr(base + 0x1000), 'C');
  EXPECT_EQ(guest().LoadOr(base + 0x3080), 'D');
  EXPECT_EQ(guest().LoadOr(base + 0x317f), 'D');
  EXPECT_EQ(guest().LoadOr(base + 0x3180), 0);
  EXPECT_EQ(guest().LoadOr(base + 0x3fff), 0);
  EXPECT_EQ(guest().LoadOr(base + 0x607f), 0);
  EXPECT_EQ(guest().Store(base + 0x6000, 1), 0);
  EXPECT_EQ(guest().Store(base + 0x1000, 1), SIGSEGV);
  // A static position-independent program keeps its heap away from the mmap area that it sits in.
  EXPECT_EQ(mm().Brk(0, guest().limits, nullptr), 0x555555554000u);
}

TEST_F(LoaderTest, InitialStack) {
  const PreparedImage image = *Prepare(Builder().Bytes(), {"prog", "", "third"});
  const LoadedImage loaded = *Load(image, true);
  GuestAddr sp = loaded.stack_pointer;
  EXPECT_EQ(sp % 16, 0u);
  EXPECT_EQ(Word(sp), 3u);
  EXPECT_EQ(String(Word(sp + 8)), "prog");
  EXPECT_EQ(String(Word(sp + 16)), "");
  EXPECT_EQ(String(Word(sp + 24)), "third");
  EXPECT_EQ(Word(sp + 32), 0u);
  EXPECT_EQ(String(Word(sp + 40)), "A=1");
  EXPECT_EQ(String(Word(sp + 48)), "B=2");
  EXPECT_EQ(Word(sp + 56), 0u);
  std::map<uint64_t, uint64_t> auxv;
  for (sp += 64; Word(sp) != AT_NULL; sp += 16) auxv[Word(sp)] = Word(sp + 8);
  EXPECT_EQ(auxv[AT_ENTRY], loaded.entry);
  EXPECT_EQ(auxv[AT_UID], 1000u);
  EXPECT_EQ(auxv[AT_PAGESZ], kPageSize);
  EXPECT_EQ(auxv[AT_PHDR], loaded.entry - 0x1010 + sizeof(Elf64_Ehdr));
  EXPECT_EQ(auxv[AT_PHNUM], 3u);
  EXPECT_EQ(auxv[AT_HWCAP], getauxval(AT_HWCAP));
  EXPECT_EQ(String(auxv[AT_EXECFN]), "/bin/prog");
  EXPECT_EQ(String(auxv[AT_PLATFORM]), "x86_64");
  EXPECT_NE(Word(auxv[AT_RANDOM]), 0u);
  const MmImage about = mm().image();
  EXPECT_EQ(String(about.arg_start), "prog");
  EXPECT_EQ(about.arg_end - about.arg_start, 5u + 1 + 6);
  EXPECT_EQ(about.arg_end, about.env_start);
  EXPECT_EQ(about.env_end - about.env_start, 8u);
  EXPECT_EQ(about.auxv.size(), 2 * auxv.size() + 2);
}

TEST_F(LoaderTest, InterpreterRunsFirst) {
  Builder program;
  program.tail += std::string("/lib/ld.so") + '\0';
  program.Add(PT_INTERP, PF_R, 0x3000, 0x3000, 11, 11);
  Builder linker;
  linker.header.e_entry = 0x1020;
  EXPECT_EQ(PrepareError(program), kENOENT);
  opener_.files["/lib/ld.so"] = linker.Bytes();
  const PreparedImage image = *Prepare(program.Bytes());
  const LoadedImage loaded = *Load(image);
  uint64_t base = 0, entry = 0;
  const MmImage about = mm().image();
  for (size_t i = 0; i < about.auxv.size(); i += 2) {
    if (about.auxv[i] == AT_BASE) base = about.auxv[i + 1];
    if (about.auxv[i] == AT_ENTRY) entry = about.auxv[i + 1];
  }
  EXPECT_EQ(loaded.entry, base + 0x1020);
  EXPECT_EQ(entry % kPageSize, 0x10u);
  EXPECT_NE(entry - 0x1010, base);
  opener_.files["/lib/ld.so"] = "not an ELF file";
  EXPECT_EQ(PrepareError(program), kELIBBAD);
}

TEST_F(LoaderTest, FixedAddressProgram) {
  Builder b;
  b.header.e_type = ET_EXEC;
  for (Elf64_Phdr& h : b.segments) h.p_vaddr += 0x400000;
  b.header.e_entry = 0x401010;
  const PreparedImage image = *Prepare(b.Bytes());
  EXPECT_EQ(Load(image)->entry, 0x401010u);
  EXPECT_EQ(guest().LoadOr(0x401000), 'C');
}

TEST_F(LoaderTest, FixedAddressInPageZeroIsRefused) {
  Builder b;
  b.header.e_type = ET_EXEC;
  EXPECT_NE(AnyError(b.Bytes()), Errno::kOK);
}

struct BadHeader {
  const char* what;
  void (*spoil)(Builder&);
  Errno expected;
};
class BadElf : public LoaderTest, public testing::WithParamInterface<BadHeader> {};
TEST_P(BadElf, IsRefused) {
  Builder b;
  GetParam().spoil(b);
  EXPECT_EQ(AnyError(b.Bytes()), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(
    Table, BadElf,
    testing::Values(BadHeader{"magic", [](Builder& b) { b.header.e_ident[1] = 'X'; }, kENOEXEC},
                    BadHeader{"class", [](Builder& b) { b.header.e_ident[EI_CLASS] = ELFCLASS32; }, kENOEXEC},
                    BadHeader{"machine", [](Builder& b) { b.header.e_machine = EM_AARCH64; }, kENOEXEC},
                    BadHeader{"type", [](Builder& b) { b.header.e_type = ET_REL; }, kENOEXEC},
                    BadHeader{"entry_size", [](Builder& b) { b.header.e_phentsize = 32; }, kENOEXEC},
                    BadHeader{"offset_overflow", [](Builder& b) { b.header.e_phoff = ~0ull; }, kENOEXEC},
                    BadHeader{"offset_beyond", [](Builder& b) { b.header.e_phoff = 1 << 20; }, kENOEXEC},
                    BadHeader{"too_many", [](Builder& b) { b.header.e_phnum = 0xffff; }, kENOEXEC},
                    BadHeader{"no_segments",
                              [](Builder& b) {
                                for (auto& h : b.segments) h.p_type = PT_NOTE;
                              },
                              kEINVAL},
                    BadHeader{"file_larger", [](Builder& b) { b.segments[1].p_filesz = 0x200; }, kEINVAL},
                    BadHeader{"vaddr_high", [](Builder& b) { b.segments[1].p_vaddr = 1ull << 63; }, kEINVAL},
                    BadHeader{"wraps", [](Builder& b) { b.segments[2].p_memsz = ~0ull - 0x1000; }, kEINVAL},
                    BadHeader{"misaligned", [](Builder& b) { b.segments[2].p_offset += 1; }, kEINVAL},
                    BadHeader{"file_offset", [](Builder& b) { b.segments[2].p_offset = ~0ull - 0xf7f; }, kEINVAL},
                    BadHeader{"long_interpreter", [](Builder& b) { b.Add(PT_INTERP, 4, 0, 0, 5000, 5000); }, kENOEXEC},
                    BadHeader{"short_interpreter", [](Builder& b) { b.Add(PT_INTERP, 4, 0, 0, 1, 1); }, kENOEXEC},
                    BadHeader{"open_interpreter", [](Builder& b) { b.Add(PT_INTERP, 4, 0x1000, 0, 8, 8); }, kENOEXEC},
                    BadHeader{"absent_interpreter", [](Builder& b) { b.Add(PT_INTERP, 4, 1 << 20, 0, 8, 8); }, kEIO}),
    [](const auto& info) { return info.param.what; });

// Whatever the bytes: an answer, never a crash, and nothing left in the memory file (TearDown).
TEST_F(LoaderTest, RandomDamage) {
  std::mt19937 rng(1);
  Builder b;
  b.tail += std::string("/lib/ld.so") + '\0';
  b.Add(PT_INTERP, PF_R, 0x3000, 0x3000, 11, 11);
  b.Add(PT_GNU_STACK, PF_R | PF_W | PF_X, 0, 0, 0, 0);
  const std::string good = b.Bytes();
  opener_.files["/lib/ld.so"] = Builder().Bytes();
  const size_t headers = sizeof(Elf64_Ehdr) + b.segments.size() * sizeof(Elf64_Phdr);
  int loaded = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bad = good;
    for (int n = 1 + static_cast<int>(rng() % 3); n > 0; --n) {
      const size_t at = rng() % headers;
      constexpr uint8_t kNasty[] = {0, 1, 0x7f, 0x80, 0xff};
      bad[at] = static_cast<char>(rng() % 2 == 0 ? kNasty[rng() % 5] : rng());
    }
    if (rng() % 8 == 0) bad.resize(rng() % bad.size());
    opener_.files["/lib/ld.so"] = rng() % 2 == 0 ? bad : Builder().Bytes();
    guest_ = std::make_unique<TestGuest>(env_);
    loaded += AnyError(bad) == Errno::kOK ? 1 : 0;
  }
  EXPECT_GT(loaded, 0);
}

TEST_F(LoaderTest, ArgumentLimits) {
  const std::string program = Builder().Bytes();
  EXPECT_EQ(Prepare(program, {std::string(kMaxArgStrlen, 'x')}).error(), kE2BIG);
  EXPECT_TRUE(Prepare(program, {std::string(kMaxArgStrlen - 1, 'x')}).ok());
  guest().limits.stack = 1 << 20;
  EXPECT_EQ(Prepare(program, std::vector<std::string>(4, std::string(100'000, 'x'))).error(), kE2BIG);
  EXPECT_EQ(Prepare(program, std::vector<std::string>(40'000, "")).error(), kE2BIG);
  EXPECT_EQ(ArgumentLimit(0), 128u << 10);
  EXPECT_EQ(ArgumentLimit(8 << 20), 2u << 20);
  EXPECT_EQ(ArgumentLimit(~0ull), 6u << 20);
  EXPECT_EQ(Prepare(program, {})->argv, std::vector<std::string>{""});
}

TEST_F(LoaderTest, LargeArgumentsFitTheStack) {
  std::vector<std::string> argv(15, std::string(100'000, 'y'));
  const PreparedImage image = *Prepare(Builder().Bytes(), argv);
  const LoadedImage loaded = *Load(image);
  EXPECT_EQ(Word(loaded.stack_pointer), 15u);
  EXPECT_EQ(String(Word(loaded.stack_pointer + 15 * 8)).size(), 100'000u);
}

TEST_F(LoaderTest, Scripts) {
  opener_.files["/bin/sh"] = Builder().Bytes();
  PreparedImage image = *Prepare("#! /bin/sh  -x  y \nrest", {"script", "arg"});
  EXPECT_EQ(image.argv, (std::vector<std::string>{"/bin/sh", "-x  y", "/bin/prog", "arg"}));
  EXPECT_EQ(image.filename, "/bin/prog");
  EXPECT_EQ(Prepare("#!/no/such\n").error(), kENOENT);
  EXPECT_EQ(Prepare("").error(), kENOEXEC);
  EXPECT_EQ(Prepare("echo hello\n").error(), kENOEXEC);
  opener_.files["/loop"] = "#!/loop\n";
  EXPECT_EQ(Prepare("#!/loop\n").error(), kELOOP);
  for (int i = 0; i < 4; ++i)
    opener_.files["/s" + std::to_string(i)] = i == 0 ? "#!/bin/sh\n" : "#!/s" + std::to_string(i - 1) + "\n";
  image = *Prepare("#!/s3\n", {"x"});
  EXPECT_EQ(image.argv, (std::vector<std::string>{"/bin/sh", "/s0", "/s1", "/s2", "/s3", "/bin/prog"}));
}

TEST(ScriptLine, Table) {
  auto parse = [](std::string_view head) { return ParseScriptLine(head); };
  EXPECT_FALSE(parse("#")->has_value());
  EXPECT_FALSE(parse("\x7f"
                     "ELF")
                   ->has_value());
  EXPECT_EQ((*parse("#!/a\n"))->interpreter, "/a");
  EXPECT_EQ((*parse("#!/a"))->interpreter, "/a");
  EXPECT_FALSE((*parse("#!/a \t\n"))->argument.has_value());
  EXPECT_EQ(*(*parse("#!\t/a\tb c \n"))->argument, "b c");
  EXPECT_EQ((*parse(std::string_view("#!/a\0b\n", 7)))->interpreter, "/a");
  EXPECT_EQ(parse("#!\n").error(), kENOEXEC);
  EXPECT_EQ(parse("#!  \n/a").error(), kENOEXEC);
  EXPECT_EQ(parse("#!").error(), kENOEXEC);
  // The line must end within the first 256 bytes, or at least the name must.
  EXPECT_EQ(parse("#!/" + std::string(253, 'x')).error(), kENOEXEC);
  std::string cut = "#!/bin/x " + std::string(300, 'y');
  cut.resize(kScriptHeadBytes);
  EXPECT_EQ((*parse(cut))->interpreter, "/bin/x");
  EXPECT_EQ((*parse(cut))->argument->size(), 255u - 9);
}

TEST_F(LoaderTest, VdsoIsMappedAndParses) {
  ASSERT_TRUE(MakeVdso(&env_).ok());
  guest_ = std::make_unique<TestGuest>(env_);
  const PreparedImage image = *Prepare(Builder().Bytes());
  ASSERT_TRUE(Load(image).ok());
  const GuestAddr vdso = mm().image().vdso_base;
  ASSERT_NE(vdso, 0u);
  Elf64_Ehdr header;
  ASSERT_EQ(mm().CopyIn(&header, vdso, sizeof header), sizeof header);
  EXPECT_EQ(memcmp(header.e_ident, ELFMAG, SELFMAG), 0);
  EXPECT_EQ(header.e_type, ET_DYN);
  EXPECT_EQ(guest().Store(vdso, 1), SIGSEGV);
  guest_.reset();
  env_.vdso = nullptr;
  env_.clock = nullptr;
}

}  // namespace
}  // namespace moat
