#include "sentry/procfs/procfs.h"

#include <fmt/format.h>
#include <linux/magic.h>

#include <charconv>

#include "fs/vfs/vfs.h"
#include "sentry/procfs/root_dir.h"

namespace moat {
namespace {

Result<uint32_t> Number(std::string_view text) {
  uint32_t v = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc() || end != text.data() + text.size()) return kEINVAL;
  return v;
}

Result<int> ParseHidePid(std::string_view v) {
  if (v == "0" || v == "off") return 0;
  if (v == "1" || v == "noaccess") return 1;
  if (v == "2" || v == "invisible") return 2;
  if (v == "4" || v == "ptraceable") return 4;
  return kEINVAL;
}

class ProcType final : public FileSystemType {
 public:
  explicit ProcType(Kernel& kernel) : kernel_(kernel) {}
  std::string_view name() const override { return "proc"; }
  bool mountable_in_user_ns() const override { return true; }
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) override {
    ProcFs::Options o;
    std::string_view data = request.data;
    while (!data.empty()) {
      size_t comma = data.find(',');
      std::string_view item = data.substr(0, comma);
      data = comma == std::string_view::npos ? std::string_view() : data.substr(comma + 1);
      if (item.empty()) continue;
      if (item.starts_with("hidepid=")) {
        o.hide_pid = TRY(ParseHidePid(item.substr(8)));
      } else if (item.starts_with("gid=")) {
        o.gid = ctx.cred.user_ns->ToKgid(TRY(Number(item.substr(4))));
        if (o.gid == kNoId) return kEINVAL;
      } else if (item == "subset=pid") {
        o.pid_only = true;
      } else {
        return kEINVAL;
      }
    }
    Task* caller = Caller(ctx);
    RefPtr<PidNamespace> ns = caller != nullptr ? caller->pid_ns_for_children() : kernel_.root_pid_ns();
    return RefPtr<FileSystem>(ProcFs::Create(kernel_, std::move(ns), o));
  }

 private:
  Kernel& kernel_;
};

}  // namespace

ProcFs::ProcFs(Kernel& kernel, RefPtr<PidNamespace> ns, const Options& options)
    : PseudoFs("proc", PROC_SUPER_MAGIC, false), kernel_(kernel), ns_(std::move(ns)), options_(options) {}

RefPtr<ProcFs> ProcFs::Create(Kernel& kernel, RefPtr<PidNamespace> ns, const Options& options) {
  RefPtr<ProcFs> fs = AdoptRef(new ProcFs(kernel, std::move(ns), options));
  fs->SetRoot(MakeProcRoot(*fs, options.pid_only));
  return fs;
}

std::string ProcFs::ShowOptions() const {
  std::string s;
  if (options_.gid != 0) s += fmt::format(",gid={}", options_.gid);
  if (options_.hide_pid != 0) {
    s += fmt::format(",hidepid={}", options_.hide_pid == 1   ? "noaccess"
                                    : options_.hide_pid == 2 ? "invisible"
                                                             : "ptraceable");
  }
  if (options_.pid_only) s += ",subset=pid";
  return s.empty() ? s : s.substr(1);
}

bool ProcFs::MaySee(const VfsContext& ctx, Task& target, bool list) const {
  const int needed = list ? 2 : 1;
  if (options_.hide_pid < needed) return true;
  if (options_.hide_pid != 4 && (options_.gid != 0 || options_.hide_pid != 0) && ctx.cred.InGroup(options_.gid)) {
    return true;
  }
  Task* caller = Caller(ctx);
  return caller == nullptr || caller->MayAccess(target, false);
}

void RegisterProcfs(Kernel& kernel) {
  auto* type = new ProcType(kernel);  // lives for ever, as the registry asks
  vfs::RegisterFileSystemType(*type);
}

}  // namespace moat
