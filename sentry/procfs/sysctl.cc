#include "sentry/procfs/sysctl.h"

#include "fs/pseudofs/text_file.h"

namespace moat {

RefPtr<Inode> MakeSysctlTree(ProcFs& fs) {
  RefPtr<StaticDir> root = MakeRef<StaticDir>(fs);
  for (const SysctlRow& row : SysctlTable()) {
    StaticDir* dir = root.get();
    std::string_view path = row.path;
    for (size_t slash; (slash = path.find('/')) != std::string_view::npos; path.remove_prefix(slash + 1)) {
      dir = &dir->Sub(std::string(path.substr(0, slash)));
    }
    TextGenerator get = [&fs, &row](const VfsContext& ctx) -> Result<std::string> {
      return (row.fixed != nullptr ? std::string(row.fixed) : TRY(row.get(fs, ctx))) + "\n";
    };
    TextWriter set;
    if (row.set != nullptr) {
      set = [&fs, &row](const VfsContext& ctx, std::string_view text) -> Result<size_t> {
        std::string_view value = text.substr(0, text.find('\n'));
        if (size_t nul = value.find('\0'); nul != std::string_view::npos) value = value.substr(0, nul);
        TRY(row.set(fs, ctx, value));
        return text.size();
      };
    }
    dir->Add(std::string(path), MakeText(fs, row.mode, std::move(get), std::move(set)));
  }
  return root;
}

}  // namespace moat
