#include "fs/overlay/guest_overlay_options.h"

#include <optional>

#include "platform/base/log.h"

namespace moat {
namespace {

constexpr size_t kMaxLayers = 500;

// Splits at `separator`, but where a backslash stands before it; backslashes stay.
std::vector<std::string_view> SplitUnescaped(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == separator) {
      parts.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && ++i == text.size()) break;
    out += text[i];
  }
  return out;
}

// seq_show_option(): what would end the option, or the field, is shown in octal.
std::string Escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (std::string_view(",= \t\n\\").find(c) == std::string_view::npos) {
      out += c;
    } else {
      char octal[5] = {'\\', static_cast<char>('0' + (c >> 6)), static_cast<char>('0' + (c >> 3 & 7)),
                       static_cast<char>('0' + (c & 7)), 0};
      out += octal;
    }
  }
  return out;
}

// The state of parsing: what was said, before it is known whether it fits together.
class Parser {
 public:
  explicit Parser(const VfsContext& ctx) : ctx_(ctx) {}

  Result<void> Set(const MountParameter& p) {
    const std::string& key = p.key;
    if (key == "lowerdir") return p.is_flag || p.place ? kEINVAL : SetLowers(p.value);
    if (key == "lowerdir+" || key == "datadir+") return AddLower(p, key == "datadir+");
    if (key == "upperdir" || key == "workdir") {
      GuestOverlayOptions::Layer layer = TRY(MakeLayer(p, /*escaped=*/true));
      if (layer.place.mount->read_only()) return kEINVAL;
      (key == "upperdir" ? o_.upper : o_.work) = std::move(layer);
      return {};
    }
    if (p.is_flag) return SetFlag(key);
    return SetChoice(key, p.value);
  }

  Result<GuestOverlayOptions> Finish() {
    using Redirect = GuestOverlayOptions::Redirect;
    if (!o_.upper.place) o_.work = {};  // useless then, and ignored
    if (!o_.upper.place) o_.is_volatile = false;
    if (metacopy_ == true && redirect_set_ && o_.redirect != Redirect::kOn) return kEINVAL;
    if (nfs_export_ == true && (index_ == false || metacopy_ == true)) return kEINVAL;
    if (o_.user_xattr) {
      if (redirect_set_ && o_.redirect != Redirect::kNoFollow) return kEINVAL;
      if (metacopy_ == true || verity_) return kEINVAL;
      o_.redirect = Redirect::kNoFollow;
    }
    if (verity_ && metacopy_ == false) return kEINVAL;
    if (metacopy_ == true && !redirect_set_) o_.redirect = Redirect::kOn;
    if (o_.lowers.empty()) return kEINVAL;
    if (o_.upper.place && !o_.work.place) return kEINVAL;
    if (index_ == true || nfs_export_ == true || metacopy_ == true || verity_) {
      MOAT_LOG_ONCE("overlay: index, nfs_export, metacopy and verity are not offered; mounted without");
    }
    return std::move(o_);
  }

 private:
  Result<GuestOverlayOptions::Layer> MakeLayer(const MountParameter& p, bool escaped) {
    if (p.place) {
      const Inode& inode = *p.place.dentry->inode_ptr();
      if (!inode.is_dir() || !inode.fs().can_be_layer()) return kEINVAL;
      return GuestOverlayOptions::Layer{ctx_.mounts.PathName(p.place, ctx_.root), p.place};
    }
    if (p.is_flag) return kEINVAL;
    std::string path = escaped ? Unescape(p.value) : p.value;
    if (path.empty()) return kEINVAL;
    VfsPath place = TRY(vfs::Resolve(ctx_, ctx_.cwd, path));
    Inode* inode = place.dentry->inode_ptr();
    if (!inode->is_dir() || !inode->fs().can_be_layer()) return kEINVAL;
    return GuestOverlayOptions::Layer{p.value, std::move(place)};
  }

  // "a:b::data1::data2": data-only layers come last.
  Result<void> SetLowers(const std::string& text) {
    o_.lowers.clear();
    o_.lowerdir.clear();
    if (text.empty()) return {};
    std::vector<std::string_view> parts = SplitUnescaped(text, ':');
    if (parts.front().empty() || parts.back().empty()) return kEINVAL;
    bool data = false;
    size_t count = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].empty()) {
        if (parts[i + 1].empty()) return kEINVAL;  // ":::"
        data = true;
        continue;
      }
      if (data && !parts[i - 1].empty()) return kEINVAL;  // a regular layer below a data-only one
      if (++count > kMaxLayers) return kEINVAL;
      MountParameter one{"lowerdir", std::string(parts[i])};
      GuestOverlayOptions::Layer layer = TRY(MakeLayer(one, /*escaped=*/true));
      if (!data) o_.lowers.push_back(std::move(layer));
    }
    o_.lowerdir = text;
    return {};
  }

  Result<void> AddLower(const MountParameter& p, bool data) {
    if (!o_.lowerdir.empty()) return kEINVAL;
    if (o_.lowers.size() == kMaxLayers) return kEINVAL;
    if (!data && has_data_) return kEINVAL;
    GuestOverlayOptions::Layer layer = TRY(MakeLayer(p, /*escaped=*/false));
    has_data_ |= data;
    if (!data) o_.lowers.push_back(std::move(layer));
    return {};
  }

  Result<void> SetFlag(std::string_view key) {
    if (key == "userxattr") {
      o_.user_xattr = true;
    } else if (key == "volatile") {
      o_.is_volatile = true;
    } else if (key == "default_permissions") {
      o_.default_permissions = true;
    } else if (key != "override_creds") {
      return kEINVAL;
    }
    return {};
  }

  static Result<bool> OnOff(std::string_view value) {
    if (value != "on" && value != "off") return kEINVAL;
    return value == "on";
  }

  Result<void> SetChoice(std::string_view key, std::string_view value) {
    using Redirect = GuestOverlayOptions::Redirect;
    if (key == "redirect_dir") {
      if (value == "on") {
        o_.redirect = Redirect::kOn;
      } else if (value == "off" || value == "follow") {
        o_.redirect = Redirect::kFollow;
      } else if (value == "nofollow") {
        o_.redirect = Redirect::kNoFollow;
      } else {
        return kEINVAL;
      }
      redirect_set_ = true;
    } else if (key == "index") {
      index_ = TRY(OnOff(value));
    } else if (key == "nfs_export") {
      nfs_export_ = TRY(OnOff(value));
    } else if (key == "metacopy") {
      metacopy_ = TRY(OnOff(value));
    } else if (key == "xino") {
      if (value != "on" && value != "off" && value != "auto") return kEINVAL;
      o_.xino = value;
    } else if (key == "uuid") {
      if (value != "on" && value != "off" && value != "auto" && value != "null") return kEINVAL;
    } else if (key == "verity") {
      if (value == "require") return kEINVAL;  // no file could ever be copied up
      if (value != "on" && value != "off") return kEINVAL;
      verity_ = value == "on";
    } else if (key == "fsync") {
      if (value != "volatile" && value != "auto" && value != "strict") return kEINVAL;
      o_.is_volatile = value == "volatile";
    } else {
      return kEINVAL;
    }
    return {};
  }

  const VfsContext& ctx_;
  GuestOverlayOptions o_;
  std::optional<bool> index_, nfs_export_, metacopy_;
  bool redirect_set_ = false, verity_ = false, has_data_ = false;
};

}  // namespace

Result<GuestOverlayOptions> GuestOverlayOptions::Parse(const VfsContext& ctx, const MountRequest& request) {
  Parser parser(ctx);
  if (!request.parameters.empty()) {
    for (const MountParameter& p : request.parameters) TRY(parser.Set(p));
    return parser.Finish();
  }
  for (std::string_view item : SplitUnescaped(request.data, ',')) {
    if (item.empty()) continue;
    size_t eq = item.find('=');
    MountParameter p{std::string(item.substr(0, eq))};
    p.is_flag = eq == item.npos;
    if (!p.is_flag) p.value = item.substr(eq + 1);
    // Layers one by one are for fsconfig(2): mount(2)'s string escapes what theirs does not.
    if (p.key.ends_with('+')) return kEINVAL;
    TRY(parser.Set(p));
  }
  return parser.Finish();
}

Result<void> GuestOverlayOptions::CheckOne(const VfsContext& ctx, const MountParameter& p) {
  return Parser(ctx).Set(p);
}

std::string GuestOverlayOptions::Show() const {
  std::string out;
  auto add = [&](std::string_view key, std::string_view value) {
    if (!out.empty()) out += ',';
    out += key;
    if (!value.empty()) out += "=" + Escaped(value);
  };
  if (!lowerdir.empty()) {
    add("lowerdir", lowerdir);
  } else {
    for (const Layer& l : lowers) add("lowerdir+", l.text);
  }
  if (upper.place) {
    add("upperdir", upper.text);
    add("workdir", work.text);
  }
  if (default_permissions) add("default_permissions", {});
  if (redirect == Redirect::kOn) add("redirect_dir", "on");
  if (redirect == Redirect::kNoFollow) add("redirect_dir", "nofollow");
  if (!xino.empty() && xino != "off") add("xino", xino);
  if (is_volatile) add("volatile", {});
  if (user_xattr) add("userxattr", {});
  return out;
}

}  // namespace moat
