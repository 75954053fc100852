#include "runsc/oci/json_reader.h"

#include <fmt/core.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace moat::oci {

using nlohmann::json;

JsonReader::JsonReader(const json* j, std::string path, JsonReport& report)
    : json_(j), path_(std::move(path)), report_(report) {
  if (json_ != nullptr && json_->is_null()) json_ = nullptr;
  if (json_ != nullptr && !json_->is_object()) {
    FailAt(path_.empty() ? "the document" : path_, "must be an object");
    json_ = nullptr;
  }
}

std::string JsonReader::FieldPath(std::string_view key) const {
  if (key.empty()) return path_;
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void JsonReader::FailAt(const std::string& path, std::string_view problem) {
  if (report_.status.ok()) report_.status = absl::InvalidArgumentError(fmt::format("{}: {}", path, problem));
}

void JsonReader::Fail(std::string_view key, std::string_view problem) { FailAt(FieldPath(key), problem); }

void JsonReader::Warn(std::string_view key, std::string_view problem) {
  report_.warnings.push_back(fmt::format("{}: {}", FieldPath(key), problem));
}

const json* JsonReader::Find(std::string_view key) const {
  if (json_ == nullptr) return nullptr;
  auto it = json_->find(std::string(key));
  return it == json_->end() || it->is_null() ? nullptr : &*it;
}

bool JsonReader::Has(std::string_view key) const { return Find(key) != nullptr; }

std::vector<std::string> JsonReader::Keys() const {
  std::vector<std::string> keys;
  if (json_ == nullptr) return keys;
  for (auto it = json_->begin(); it != json_->end(); ++it) keys.push_back(it.key());
  return keys;
}

bool JsonReader::Bool(std::string_view key, bool fallback) {
  const json* j = Find(key);
  if (j == nullptr) return fallback;
  if (!j->is_boolean()) {
    Fail(key, "must be true or false");
    return fallback;
  }
  return j->get<bool>();
}

std::string JsonReader::String(std::string_view key) {
  const json* j = Find(key);
  if (j == nullptr) return {};
  if (!j->is_string()) {
    Fail(key, "must be a string");
    return {};
  }
  std::string s = j->get<std::string>();
  if (s.find('\0') != std::string::npos) Fail(key, "must not contain a NUL byte");
  return s;
}

std::string JsonReader::RequiredString(std::string_view key) {
  std::string s = String(key);
  if (s.empty()) Fail(key, Has(key) ? "must not be empty" : "is required");
  return s;
}

std::optional<int64_t> JsonReader::OptionalInt(std::string_view key, int64_t low, int64_t high) {
  const json* j = Find(key);
  if (j == nullptr) return std::nullopt;
  if (!j->is_number_integer() ||
      (j->is_number_unsigned() && j->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))) {
    Fail(key, "must be an integer");
    return std::nullopt;
  }
  int64_t v = j->get<int64_t>();
  if (v < low || v > high) {
    Fail(key, fmt::format("must be between {} and {}, is {}", low, high, v));
    return std::nullopt;
  }
  return v;
}

int64_t JsonReader::Int(std::string_view key, int64_t low, int64_t high, int64_t fallback) {
  return OptionalInt(key, low, high).value_or(fallback);
}

uint64_t JsonReader::RequiredUint64(std::string_view key) {
  const json* j = Find(key);
  if (j == nullptr) {
    Fail(key, "is required");
    return 0;
  }
  if (j->is_number_unsigned()) return j->get<uint64_t>();
  // -1 is how some writers spell RLIM_INFINITY.
  if (j->is_number_integer() && j->get<int64_t>() == -1) return ~uint64_t{0};
  Fail(key, "must be an unsigned integer");
  return 0;
}

std::vector<std::string> JsonReader::StringsAt(const json& j, const std::string& path) {
  std::vector<std::string> out;
  if (!j.is_array()) {
    FailAt(path, "must be an array of strings");
    return out;
  }
  for (size_t i = 0; i < j.size(); ++i) {
    if (!j[i].is_string()) {
      FailAt(fmt::format("{}[{}]", path, i), "must be a string");
      return out;
    }
    out.push_back(j[i].get<std::string>());
    if (out.back().find('\0') != std::string::npos)
      FailAt(fmt::format("{}[{}]", path, i), "must not contain a NUL byte");
  }
  return out;
}

std::vector<std::string> JsonReader::Strings(std::string_view key) {
  const json* j = Find(key);
  return j == nullptr ? std::vector<std::string>() : StringsAt(*j, FieldPath(key));
}

std::vector<uint32_t> JsonReader::Ids(std::string_view key) {
  std::vector<uint32_t> out;
  const json* j = Find(key);
  if (j == nullptr) return out;
  if (!j->is_array()) {
    Fail(key, "must be an array of ids");
    return out;
  }
  for (size_t i = 0; i < j->size(); ++i) {
    const json& e = (*j)[i];
    if (!e.is_number_unsigned() || e.get<uint64_t>() >= std::numeric_limits<uint32_t>::max()) {
      FailAt(fmt::format("{}[{}]", FieldPath(key), i), "must be an id below 4294967295");
      return out;
    }
    out.push_back(e.get<uint32_t>());
  }
  return out;
}

std::map<std::string, std::string> JsonReader::StringMap(std::string_view key) {
  std::map<std::string, std::string> out;
  const json* j = Find(key);
  if (j == nullptr) return out;
  if (!j->is_object()) {
    Fail(key, "must be an object of strings");
    return out;
  }
  for (auto it = j->begin(); it != j->end(); ++it) {
    if (!it->is_string()) {
      FailAt(fmt::format("{}.{}", FieldPath(key), it.key()), "must be a string");
      return out;
    }
    out[it.key()] = it->get<std::string>();
  }
  return out;
}

JsonReader JsonReader::Object(std::string_view key) { return JsonReader(Find(key), FieldPath(key), report_); }

void JsonReader::EachObject(std::string_view key, absl::FunctionRef<void(JsonReader&)> visit) {
  const json* j = Find(key);
  if (j == nullptr) return;
  if (!j->is_array()) {
    Fail(key, "must be an array");
    return;
  }
  for (size_t i = 0; i < j->size(); ++i) {
    JsonReader reader(&(*j)[i], fmt::format("{}[{}]", FieldPath(key), i), report_);
    visit(reader);
  }
}

}  // namespace moat::oci
