// /proc/locks, /proc/sysvipc. Source: proc_locks(5), sysvipc(7), proc_sysvipc(5).
#include <fmt/format.h>

#include "fs/pseudofs/text_file.h"
#include "fs/vfs/file_locks.h"
#include "fs/vfs/filesystem.h"
#include "sentry/ipc/msg.h"
#include "sentry/ipc/sem.h"
#include "sentry/ipc/shm.h"
#include "sentry/procfs/system_files.h"

namespace moat {
namespace {

using Text = Result<std::string>;

// Locks of processes that this mount does not show are left out, as Linux does.
std::string Locks(ProcFs& fs) {
  std::string s;
  int number = 0;
  for (const RefPtr<Inode>& inode : InodesWithLocks()) {
    FileLockList* list = inode->locks_if_any();
    if (list == nullptr) continue;
    Result<Kstat> st = inode->GetAttr();
    if (!st.ok()) continue;
    for (const FileLockList::Info& l : list->Snapshot()) {
      int32_t pid = l.pid;
      if (pid > 0) {
        RefPtr<ThreadGroup> group = fs.kernel().FindThreadGroup(pid, *fs.kernel().root_pid_ns());
        pid = group ? group->IdIn(fs.ns()) : 0;
        if (pid == 0) continue;
      }
      static constexpr const char* kKinds[] = {"FLOCK  ADVISORY ", "POSIX  ADVISORY ", "OFDLCK ADVISORY ",
                                               "LEASE  ACTIVE   "};
      const char* kind = l.breaking ? "LEASE  BREAKING " : kKinds[l.kind];
      std::string end = l.end == kLockToEnd ? "EOF" : fmt::format("{}", l.end);
      s += fmt::format("{}: {} {} {} {:02x}:{:02x}:{} {} {}\n", ++number, kind, l.exclusive ? "WRITE" : "READ", pid,
                       st->dev.major, st->dev.minor, st->ino, l.start, end);
    }
  }
  return s;
}

// One row for each object of the caller's namespace; `row(id, structure)`.
template <typename Table, typename Row>
std::string Rows(const VfsContext& ctx, const char* head, Row row) {
  std::string s = head;
  Task* t = Caller(ctx);
  RefPtr<IpcNamespace> ns = t != nullptr ? t->ipc_ns() : nullptr;
  if (!ns) return s;
  RefPtr<Table> table = Table::Of(*ns);
  const int last = table->GetTotals().highest_index;
  for (int index = 0; index <= last; ++index) {
    int id;
    auto ds = table->Stat(*t, index, /*by_index=*/true, /*check=*/false, &id);
    if (ds.ok()) s += row(id, *ds);
  }
  return s;
}

Text Shm(const VfsContext& ctx) {
  return Rows<ShmTable>(
      ctx,
      "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      "
      "dtime      ctime                   rss                  swap\n",
      [](int id, const shmid_ds& d) {
        const ipc_perm& p = d.shm_perm;
        return fmt::format(
            "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}\n", p.__key, id,
            p.mode, d.shm_segsz, d.shm_cpid, d.shm_lpid, d.shm_nattch, p.uid, p.gid, p.cuid, p.cgid, d.shm_atime,
            d.shm_dtime, d.shm_ctime, PageCeil(d.shm_segsz), 0);
      });
}

Text Sem(const VfsContext& ctx) {
  return Rows<SemTable>(ctx, "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
                        [](int id, const semid_ds& d) {
                          const ipc_perm& p = d.sem_perm;
                          return fmt::format("{:10} {:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}\n", p.__key, id,
                                             p.mode, d.sem_nsems, p.uid, p.gid, p.cuid, p.cgid, d.sem_otime,
                                             d.sem_ctime);
                        });
}

Text Msg(const VfsContext& ctx) {
  return Rows<MsgTable>(ctx,
                        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      "
                        "stime      rtime      "
                        "ctime\n",
                        [](int id, const msqid_ds& d) {
                          const ipc_perm& p = d.msg_perm;
                          return fmt::format(
                              "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}\n",
                              p.__key, id, p.mode, d.__msg_cbytes, d.msg_qnum, d.msg_lspid, d.msg_lrpid, p.uid, p.gid,
                              p.cuid, p.cgid, d.msg_stime, d.msg_rtime, d.msg_ctime);
                        });
}

}  // namespace

void AddLockFiles(ProcFs& fs, StaticDir& root) {
  root.Add("locks", MakeText(fs, 0444, [&fs](const VfsContext&) -> Text { return Locks(fs); }));
  StaticDir& sysvipc = root.Sub("sysvipc");
  sysvipc.Add("shm", MakeText(fs, 0444, Shm));
  sysvipc.Add("sem", MakeText(fs, 0444, Sem));
  sysvipc.Add("msg", MakeText(fs, 0444, Msg));
}

}  // namespace moat
