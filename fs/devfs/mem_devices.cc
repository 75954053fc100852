#include "fs/devfs/mem_devices.h"

#include <linux/random.h>
#include <sys/random.h>

#include <algorithm>
#include <array>

namespace moat {
namespace {

// Reads and writes at any offset; seeking answers 0 (null(4)).
class MemFile : public File {
 public:
  using File::File;
  Result<size_t> PWrite(const VfsContext&, IoSource& src, int64_t) override {
    size_t n = src.remaining();
    src.Truncate(0);  // taken without a look: who writes in pieces goes on until nothing remains
    return n;
  }
  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override { return PRead(ctx, dst, 0); }
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override { return PWrite(ctx, src, 0); }
  bool SupportsEpoll() const override { return false; }
  Result<int64_t> Seek(const VfsContext&, int64_t, int) override {
    set_offset(0);
    return 0;
  }
};

class NullFile final : public MemFile {
 public:
  using MemFile::MemFile;
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return size_t{0}; }
};

class ZeroFile final : public MemFile {
 public:
  using MemFile::MemFile;
  Result<size_t> PRead(const VfsContext&, IoDest& dst, int64_t) override {
    return dst.remaining() == 0 ? Result<size_t>(size_t{0}) : dst.PutZeros(dst.remaining());
  }
};

class FullFile final : public MemFile {
 public:
  using MemFile::MemFile;
  Result<size_t> PRead(const VfsContext&, IoDest& dst, int64_t) override {
    return dst.remaining() == 0 ? Result<size_t>(size_t{0}) : dst.PutZeros(dst.remaining());
  }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kENOSPC; }
};

// Always seeded: random and urandom are the same, as in Linux since 5.6.
class RandomFile final : public MemFile {
 public:
  RandomFile(VfsPath path, OpenFlags flags, MemDriver::FillRandomFn fill, bool polled)
      : MemFile(std::move(path), flags), fill_(fill), polled_(polled) {}
  bool SupportsEpoll() const override { return polled_; }
  Result<size_t> PRead(const VfsContext&, IoDest& dst, int64_t) override {
    std::array<char, 256> block;  // up to 256 bytes the host never returns less (getrandom(2))
    size_t total = 0;
    while (dst.remaining() > 0) {
      size_t n = std::min(block.size(), dst.remaining());
      if (fill_ != nullptr) {
        fill_(block.data(), n);
      } else if (getrandom(block.data(), n, 0) != static_cast<ssize_t>(n)) {
        return kEIO;
      }
      Result<size_t> put = dst.Put(block.data(), n);
      if (!put.ok()) return total != 0 ? Result<size_t>(total) : put;
      total += *put;
      if (*put != n) break;
    }
    return total;
  }
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override {
    constexpr int kPoolBits = 256;
    switch (cmd) {
      case RNDGETENTCNT:
        if (memory.CopyOut(arg, &kPoolBits, sizeof kPoolBits) != sizeof kPoolBits) return kEFAULT;
        return 0;
      case RNDADDTOENTCNT:
      case RNDADDENTROPY:
      case RNDZAPENTCNT:
      case RNDCLEARPOOL:
      case RNDRESEEDCRNG:
        // The pool is the host's: privileged callers are obeyed by doing nothing, as their entropy is not needed.
        if (!ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEPERM;
        return 0;
      default:
        return kENOTTY;
    }
  }

 private:
  const MemDriver::FillRandomFn fill_;
  const bool polled_;  // random(4): only /dev/random can be waited for
};

}  // namespace

Result<RefPtr<File>> MemDriver::Open(const VfsContext&, const VfsPath& path, OpenFlags flags, DeviceId dev) {
  switch (dev.minor) {
    case kNullMinor:
      return RefPtr<File>(MakeRef<NullFile>(path, flags));
    case kZeroMinor:
      return RefPtr<File>(MakeRef<ZeroFile>(path, flags));
    case kFullMinor:
      return RefPtr<File>(MakeRef<FullFile>(path, flags));
    case kRandomMinor:
    case kUrandomMinor:
      return RefPtr<File>(MakeRef<RandomFile>(path, flags, fill_random_, dev.minor == kRandomMinor));
    default:
      return kENXIO;
  }
}

}  // namespace moat
