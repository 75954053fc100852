// The process object, of config.json and of process.json: what parse.cc reads them with.
#ifndef MOAT_RUNSC_OCI_PROCESS_READER_H_
#define MOAT_RUNSC_OCI_PROCESS_READER_H_

#include <string_view>

#include "runsc/oci/json_reader.h"
#include "runsc/oci/spec.h"

namespace moat::oci {

inline constexpr int64_t kMaxId = 4294967294;
inline constexpr std::string_view kIgnored = "not implemented by this version, ignored";

Process ReadProcess(JsonReader p);

}  // namespace moat::oci

#endif  // MOAT_RUNSC_OCI_PROCESS_READER_H_
