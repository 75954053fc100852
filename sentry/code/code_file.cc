#include "sentry/code/code_file.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "platform/base/log.h"
#include "platform/fiber/fiber.h"
#include "platform/memory/safe_copy.h"
#include "sentry/code/function_table.h"

namespace moat {
namespace {

using Kind = CodePatcher::Kind;

// As many processes have mapped the file: more will. A pipeline of a few programs is over before it could pay.
constexpr int kWorthwhile = 5;
// Calls of one instruction, in all processes together, that make it worth rewriting.
constexpr uint32_t kHot = 16, kDecided = ~uint32_t{0};
constexpr size_t kMaxCounted = 4096;
constexpr uint64_t kMaxScanned = 64 << 20;
constexpr uint64_t kScanStep = 256 << 10;
constexpr uint64_t kMaxFunction = 64 << 10;
constexpr std::string_view kCpuid = "\x0f\xa2";
// Each piece is a mapping of its own in each process, and two where it splits another: pages between two that are no
// farther apart than this are copied with them.
constexpr uint64_t kMaxGap = 16 * kPageSize;

// The part of `piece` in [start, end) is copied to where that part lies in `bytes`, which begin at `start`.
void Overlay(std::vector<uint8_t>& bytes, uint64_t start, const CodePatch::Piece& piece) {
  for (size_t i = 0; i < piece.bytes.size(); ++i) {
    const uint64_t at = piece.address + i - start;
    if (at < bytes.size()) bytes[at] = piece.bytes[i];
  }
}

// Where in [start, end) kCpuid stands.
std::vector<uint64_t> FindBytes(ObjectReader& file, uint64_t start, uint64_t end) {
  std::vector<uint64_t> found;
  for (uint64_t at = start; at < end;) {
    const std::vector<uint8_t> bytes = file.ReadUpTo(at, std::min(end, at + kScanStep));
    if (bytes.size() < kCpuid.size()) break;
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (size_t i = text.find(kCpuid); i != text.npos; i = text.find(kCpuid, i + kCpuid.size()))
      found.push_back(at + i);
    at += bytes.size() - 1;  // one that is cut in two is found next time
  }
  return found;
}

}  // namespace

RefPtr<CodeFile> CodeFile::Of(Mappable& object, CodeStore& store) {
  RefPtr<RefCounted> derived = object.Derived([&store] { return RefPtr<RefCounted>(AdoptRef(new CodeFile(store))); });
  return RefPtr<CodeFile>(static_cast<CodeFile*>(derived.get()));
}

bool CodeFile::StartWork(const RefPtr<Mappable>& object, absl::AnyInvocable<void(CodeFile&, Mappable&)> work) {
  {
    MutexLock lock(mu_);
    if (working_) return false;
    working_ = true;
  }
  absl::AnyInvocable<void()> job = [self = RefPtr<CodeFile>(this), object, work = std::move(work)]() mutable {
    work(*self, *object);
    MutexLock lock(self->mu_);
    self->working_ = false;
  };
  // Nobody waits for it.
  if (RunElsewhere(job)) return true;
  MutexLock lock(mu_);
  working_ = false;
  return false;
}

RefPtr<const CodeImage> CodeFile::NoteMapped(const RefPtr<Mappable>& object, uint64_t start, uint64_t end) {
  {
    MutexLock lock(mu_);
    mapped_ = std::min(mapped_ + 1, kWorthwhile);
    if (scanned_ || mapped_ < kWorthwhile || end - start > kMaxScanned) return image_;
  }
  // When it is not started, the next process tries again.
  (void)StartWork(object, [start, end](CodeFile& self, Mappable& o) { self.Scan(o, start, end); });
  MutexLock lock(mu_);
  return image_;
}

void CodeFile::NoteCalls(uint64_t behind, uint32_t number, uint32_t calls) {
  MutexLock lock(mu_);
  if (calls_.size() == kMaxCounted && !calls_.contains(behind)) return;
  uint32_t& sum = calls_[behind];
  if (sum == kDecided) return;
  sum = std::min(sum + std::min(calls, kHot), kHot);
  if (sum < kHot || mapped_ < kWorthwhile) return;
  sum = kDecided;
  wanted_.push_back({behind, Kind::kCall, number});
}

void CodeFile::BuildWanted(const RefPtr<Mappable>& object) {
  {
    MutexLock lock(mu_);
    if (wanted_.empty()) return;
  }
  (void)StartWork(object, [](CodeFile& self, Mappable& o) { self.BuildNow(o); });
}

void CodeFile::BuildNow(Mappable& object) {
  std::vector<Wanted> wanted;
  {
    MutexLock lock(mu_);
    wanted.swap(wanted_);
  }
  Build(object, wanted);
}

void CodeFile::Scan(Mappable& object, uint64_t start, uint64_t end) {
  ObjectReader file(object, store_.memory());
  std::vector<uint64_t> candidates;
  if (store_.patcher().WantsCpuids()) candidates = FindBytes(file, start, end);
  // Two such bytes may be data, or the inside of another instruction: only what decoding a function comes to counts.
  std::vector<Wanted> wanted;
  const std::optional<FunctionTable> functions = candidates.empty() ? std::nullopt : FunctionTable::Read(file);
  uint64_t known = 0;  // all before it are dealt with
  for (const uint64_t candidate : candidates) {
    if (!functions || candidate < known) continue;
    const std::optional<FunctionTable::Range> function = functions->Find(file, candidate);
    if (!function || function->end - function->start > kMaxFunction) continue;
    known = function->end;
    const std::vector<uint8_t> bytes = file.ReadUpTo(function->start, function->end);
    for (uint64_t behind : store_.patcher().FindCpuids({function->start, bytes}))
      wanted.push_back({behind, Kind::kCpuid, 0});
  }
  Build(object, wanted);
  MutexLock lock(mu_);
  scanned_ = true;
}

RefPtr<const CodeSite> CodeFile::PlanSite(ObjectReader& file, const std::vector<RefPtr<const CodeSite>>& others,
                                          const Wanted& wanted) {
  const uint64_t start = wanted.behind - std::min(wanted.behind, CodeWindow::kBefore);
  const std::vector<uint8_t> original = file.ReadUpTo(start, wanted.behind + CodeWindow::kBehind);
  std::vector<uint8_t> now = original;
  for (const RefPtr<const CodeSite>& other : others) {
    for (const CodePatch::Piece& piece : other->patch.code) Overlay(now, start, piece);
  }
  CodePatcher& patcher = store_.patcher();
  std::optional<CodePatch> patch = patcher.Plan({start, now}, wanted.behind, wanted.kind, wanted.number);
  if (!patch) return nullptr;
  std::vector<CodePatch::Piece> originals = patch->OriginalsIn({start, original});
  const bool written = store_.WriteTables(*patch);
  RefPtr<const CodeSite> site = MakeRef<CodeSite>(patcher, wanted.behind, *std::move(patch), std::move(originals));
  return written ? site : nullptr;
}

std::optional<CodeImage::Piece> CodeFile::MakePiece(ObjectReader& file,
                                                    const std::vector<RefPtr<const CodeSite>>& sites, uint64_t start,
                                                    uint64_t end) {
  std::vector<uint8_t> bytes = file.ReadUpTo(start, end);
  bytes.resize(end - start);
  for (const RefPtr<const CodeSite>& site : sites) {
    for (const CodePatch::Piece& piece : site->patch.code) Overlay(bytes, start, piece);
  }
  MemoryFile& memory = store_.memory();
  Result<FileRange> range = memory.Allocate(end - start, MemoryKind::kPageCache);
  if (!range.ok()) return std::nullopt;
  for (uint64_t done = 0; done < bytes.size(); done += kPageSize) {
    Result<std::byte*> to = memory.Pointer(range->start + done);
    if (to.ok() && SafeCopy(*to, bytes.data() + done, kPageSize) == kPageSize) continue;
    memory.Unref(*range);
    return std::nullopt;
  }
  return CodeImage::Piece{start, end, range->start};
}

void CodeFile::Build(Mappable& object, const std::vector<Wanted>& wanted) {
  ObjectReader file(object, store_.memory());
  std::vector<RefPtr<const CodeSite>> sites;
  {
    MutexLock lock(mu_);
    if (image_) sites = image_->sites();
  }
  const size_t before = sites.size();
  for (const Wanted& w : wanted) {
    if (RefPtr<const CodeSite> site = PlanSite(file, sites, w)) sites.push_back(std::move(site));
  }
  if (sites.size() == before) return;
  std::set<uint64_t> pages;
  for (const RefPtr<const CodeSite>& site : sites) pages.insert(site->page());
  std::vector<CodeImage::Piece> pieces;
  bool complete = true;
  for (auto it = pages.begin(); it != pages.end() && complete;) {
    const uint64_t start = *it;
    uint64_t end = start + kPageSize;
    for (++it; it != pages.end() && *it - end <= kMaxGap; ++it) end = *it + kPageSize;
    const std::optional<CodeImage::Piece> piece = MakePiece(file, sites, start, end);
    complete = piece.has_value();
    if (piece) pieces.push_back(*piece);
  }
  RefPtr<const CodeImage> image = MakeRef<CodeImage>(store_.memory(), std::move(pieces), std::move(sites));
  if (!complete) return;  // no memory: what there was stays
  MutexLock lock(mu_);
  std::swap(image_, image);
}

}  // namespace moat
