"""Runs runsc for tests and sees what it leaves behind: processes, mounts, cgroups, state files.

The test process makes itself the reaper of its descendants, so a leftover process is a descendant of it that does not
go away. RUNSC and PLATFORM come from the environment.
"""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

RUNSC = os.environ.get("RUNSC", "")
PLATFORM = os.environ.get("PLATFORM", "systrap")
BUSYBOX = "/bin/busybox"
PR_SET_CHILD_SUBREAPER = 36
LIMIT = 60  # seconds that any command may take


def descendants():
    """{pid: "name state"} of the living and dead descendants of this process."""
    parents, names = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        head, tail = stat.rsplit(")", 1)
        fields = tail.split()
        parents[int(entry)] = int(fields[1])
        names[int(entry)] = f"{head.split('(', 1)[1]} {fields[0]}"
    found, front = {}, {os.getpid()}
    while front:
        front = {pid for pid, parent in parents.items() if parent in front and pid not in found}
        found.update({pid: names[pid] for pid in front})
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        pass


def mounts():
    return {line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()}


def cgroups(name):
    return [str(path) for path in pathlib.Path("/sys/fs/cgroup").rglob(f"*{name}*") if path.is_dir()]


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit {self.code}, stdout {self.out!r}, stderr {self.err!r}"


class RunscTest(unittest.TestCase):
    """One temporary directory, one --root and one bundle per test; afterwards nothing may be left."""

    @classmethod
    def setUpClass(cls):
        if not os.access(RUNSC, os.X_OK):
            raise RuntimeError(f"RUNSC={RUNSC!r} is no program")
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="moat-oci-"))
        self.state = self.directory / "state"
        self.id = f"t{os.getpid()}-{self._testMethodName[-20:]}".replace("_", "-")
        self.mounts_before = mounts()
        self.background = []

    def tearDown(self):
        for process in self.background:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.expect_nothing_left()
        shutil.rmtree(self.directory)

    # -- making things --

    def bundle(self, change=None, args=("/bin/true",)):
        """A valid bundle with a busybox root; `change` may edit the configuration."""
        path = self.directory / "bundle"
        (path / "rootfs/bin").mkdir(parents=True, exist_ok=True)
        for name in ("proc", "dev", "tmp", "sys", "etc"):
            (path / "rootfs" / name).mkdir(exist_ok=True)
        if not (path / "rootfs/bin/busybox").exists():
            shutil.copy(BUSYBOX, path / "rootfs/bin/busybox")
            for applet in ("sh", "true", "sleep", "cat", "echo", "id"):
                os.symlink("busybox", path / "rootfs/bin" / applet)
        config = {
            "ociVersion": "1.2.0",
            "process": {"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
        if change:
            change(config)
        (path / "config.json").write_text(json.dumps(config))
        return path

    def command(self, *args):
        return [RUNSC, f"--root={self.state}", f"--platform={PLATFORM}", *map(str, args)]

    def run_tool(self, *args, stdin=subprocess.DEVNULL):
        # Files, not pipes: a process left behind must not hold up the end of the output.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(self.command(*args), stdin=stdin, stdout=out, stderr=err, start_new_session=True)
            try:
                code = process.wait(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.fail(f"runsc {' '.join(map(str, args))} does not end")
            out.seek(0)
            err.seek(0)
            return Result(code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))

    def start_tool(self, *args):
        process = subprocess.Popen(self.command(*args), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        self.background.append(process)
        return process

    # -- expectations --

    def expect_refusal(self, result, *words, code=1):
        """The exit code, and one line on stderr that has all of `words`."""
        self.assertEqual(result.code, code, result)
        lines = [line for line in result.err.splitlines() if "warning" not in line.lower()]
        self.assertEqual(len(lines), 1, result)
        for word in words:
            self.assertIn(word.lower(), lines[0].lower(), result)

    def expect_nothing_left(self):
        end = time.time() + 10
        while True:
            reap()
            left = descendants()
            if not left or time.time() > end:
                break
            time.sleep(0.02)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        reap()
        self.assertEqual(left, {}, "processes left behind")
        self.assertEqual(mounts() - self.mounts_before, set(), "mounts left behind")
        self.assertEqual(cgroups(self.id), [], "cgroups left behind")
        state = [str(path) for path in self.state.rglob("*")] if self.state.exists() else []
        self.assertEqual([path for path in state if self.id in path], [], "state files left behind")

    def wait_for_status(self, wanted):
        end = time.time() + LIMIT
        while time.time() < end:
            result = self.run_tool("state", self.id)
            if result.code == 0 and json.loads(result.out)["status"] == wanted:
                return json.loads(result.out)
            time.sleep(0.02)
        self.fail(f"the container never is {wanted}: {result}")
