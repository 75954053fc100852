// execve(2), execveat(2), and the first program of a container. Source: execve(2), capabilities(7), credentials(7).
#ifndef MOAT_SENTRY_KERNEL_TASK_EXEC_H_
#define MOAT_SENTRY_KERNEL_TASK_EXEC_H_

#include <string>
#include <vector>

#include "sentry/kernel/executable_file.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/loader/loader.h"

namespace moat {

struct ExecRequest {
  RefPtr<ExecutableFile> file;
  std::string filename;  // as ImageRequest has it
  bool filename_inaccessible = false;
  std::vector<std::string> argv;
  std::vector<std::string> envp;
};

// The credentials that a program gets from the caller's, the file's mode bits and its file capabilities.
struct ExecCredentials {
  RefPtr<const Credentials> cred;
  bool secure = false;  // AT_SECURE; the process is not dumpable then
};
// `watched`: by a tracer that may not have what the program would gain, so that it gains nothing.
Result<ExecCredentials> CredentialsForExec(const Credentials& caller, const VfsContext& ctx, const File& file,
                                           bool watched);

class TaskExec {
 public:
  // On success the task's registers are those of the new program; the old one is gone. An error leaves all as it was
  // (kEINTR: the task was killed meanwhile).
  static Result<void> Run(Task& t, ExecRequest request);
  // The first program of `t`, which is not started yet.
  static Result<void> LoadFirst(Task& t, const VfsContext& ctx, ExecRequest request);

 private:
  struct NewProgram {
    PreparedImage image;
    ExecCredentials credentials;
    RefPtr<MemoryManager> mm;
    LoadedImage loaded;
  };
  static Result<NewProgram> Load(Task& t, const VfsContext& ctx, ExecRequest request);
  // Ends all other threads; the caller is the leader then.
  static Result<void> Dethread(Task& t);
  static void TakeLeadership(Task& t);
  static void Install(Task& t, NewProgram& program);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_EXEC_H_
