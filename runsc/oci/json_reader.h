// JsonReader: typed reading of a JSON object with errors that name the field ("process.args[2]: must be a string").
// The first error wins; later reads answer defaults, so a parser reads straight down and asks status() at its end.
#ifndef MOAT_RUNSC_OCI_JSON_READER_H_
#define MOAT_RUNSC_OCI_JSON_READER_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace moat::oci {

// Shared by the readers of one document.
struct JsonReport {
  absl::Status status;
  std::vector<std::string> warnings;  // "linux.seccomp: not implemented, ignored"
};

class JsonReader {
 public:
  // `json` must outlive the reader. Null, or not an object: every field is absent.
  JsonReader(const nlohmann::json* json, std::string path, JsonReport& report);

  bool present() const { return json_ != nullptr; }
  const std::string& path() const { return path_; }
  std::string FieldPath(std::string_view key) const;

  // Absent or null fields answer the default.
  bool Bool(std::string_view key, bool fallback = false);
  std::string String(std::string_view key);
  std::string RequiredString(std::string_view key);
  int64_t Int(std::string_view key, int64_t low, int64_t high, int64_t fallback = 0);
  std::optional<int64_t> OptionalInt(std::string_view key, int64_t low, int64_t high);
  uint64_t RequiredUint64(std::string_view key);
  std::vector<std::string> Strings(std::string_view key);
  std::vector<uint32_t> Ids(std::string_view key);
  std::map<std::string, std::string> StringMap(std::string_view key);

  bool Has(std::string_view key) const;
  // The object's keys in the document's order of names.
  std::vector<std::string> Keys() const;
  JsonReader Object(std::string_view key);
  void EachObject(std::string_view key, absl::FunctionRef<void(JsonReader&)> visit);

  // Records an error about `key` ("" is the object itself).
  void Fail(std::string_view key, std::string_view problem);
  void Warn(std::string_view key, std::string_view problem);

 private:
  const nlohmann::json* Find(std::string_view key) const;
  std::vector<std::string> StringsAt(const nlohmann::json& j, const std::string& path);
  void FailAt(const std::string& path, std::string_view problem);

  const nlohmann::json* json_;
  std::string path_;
  JsonReport& report_;
};

}  // namespace moat::oci

#endif  // MOAT_RUNSC_OCI_JSON_READER_H_
