#!/usr/bin/env python3
"""Runs one application case natively and in the sandbox and compares: run_case.py CASE [--runsc FILE --platform NAME].

CASE is a script of cases/. Its leading comments may say:
    # timeout: SECONDS   for the native run; the sandbox gets ten times that (default 60)
    # shell: PATH        what runs it (default /bin/bash)
    # root: DIRECTORY    inside the test root (default /)
    # status: NUMBER     the exit status that the native run must have (default 0)

Both runs get the same: a fresh overlay over the cached Debian root, the script and case_files/ in /case, own pid, ipc, uts and
network namespaces, /proc, /dev and a tmpfs on /tmp; natively a chroot, in the sandbox an OCI bundle. Standard output
and the exit status must be equal. Without --runsc only the native run is made.
"""
import argparse
import contextlib
import difflib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import fresh_root  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


class Case:
    def __init__(self, path):
        self.path = path
        head = path.read_text()
        option = lambda name, default: (re.search(rf"^# {name}: (.+)$", head, re.M) or [None, default])[1]
        self.timeout = int(option("timeout", "60"))
        self.shell = option("shell", "/bin/bash")
        self.root = option("root", "/").strip("/")
        self.command = fresh_root.script_command(self.shell, path.name)
        self.status = int(option("status", "0"))


def run(case, lower, command, timeout, work):
    """Returns (exit status, stdout, stderr) of `command` in a fresh root at work/rootfs."""
    files = [case.path, *sorted((HERE / "case_files").iterdir())]
    environment = dict(os.environ, CASE_FILES=" ".join(map(str, files)),
                       ENVIRONMENT=" ".join(fresh_root.ENVIRONMENT))
    line = ["prlimit", "--core=0", "unshare", "--mount", "--propagation", "private", "sh", "-c", fresh_root.MOUNT, "sh",
            str(work), str(lower), *command]
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment, start_new_session=True)
    try:
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        return f"no end after {timeout} s", out.decode(errors="replace"), err.decode(errors="replace")


def run_native(case, lower, work):
    # Nothing sets the host's clock, as tests of programs like to: it is everybody's.
    command = ["setpriv", "--bounding-set=-sys_time", "unshare", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child", "sh", "-c", fresh_root.NATIVE, "sh",
               f"{work}/rootfs", *case.command]
    return run(case, lower, command, case.timeout, work)


def run_sandboxed(case, lower, work, options):
    bundle = pathlib.Path(tempfile.mkdtemp(prefix="moat-bundle-"))
    try:
        (bundle / "config.json").write_text(json.dumps(fresh_root.bundle_config(case.command, f"{work}/rootfs")))
        name = f"app-{case.path.stem}-{os.getpid()}"
        command = [options.runsc, f"--platform={options.platform}", f"--root={bundle}/state", "run", "--bundle",
                   str(bundle), name]
        return run(case, lower, command, case.timeout * 10, work)
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


@contextlib.contextmanager
def test_root(case):
    """(the lower root of `case`, an empty work directory)"""
    made = subprocess.run([str(HERE / "make_root")], stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode != 0:
        sys.exit(1)
    work = pathlib.Path(tempfile.mkdtemp(prefix="moat-app-"))
    try:
        yield pathlib.Path(made.stdout.strip()) / case.root, work
    finally:
        os.rmdir(work)


def show(title, text, lines=60):
    if text.strip():
        print(f"--- {title}")
        print("\n".join(text.splitlines()[-lines:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("--runsc")
    parser.add_argument("--platform", default="ptrace")
    options = parser.parse_args()
    case = Case(options.case.resolve())
    with test_root(case) as (lower, work):
        status, out, err = run_native(case, lower, work)
        if not options.runsc:
            show("stdout", out)
            show("stderr", err)
            print(f"native exit status {status}, expected {case.status}")
            sys.exit(0 if status == case.status else 1)
        sandbox_status, sandbox_out, sandbox_err = run_sandboxed(case, lower, work, options)
    if status != case.status:
        print(f"the native run exits with {status}, expected {case.status}: the case is wrong")
        show("stderr of the native run", err)
    elif (status, out) == (sandbox_status, sandbox_out):
        print(f"equal: {len(out.splitlines())} lines, exit status {status}")
        sys.exit(0)
    print(f"exit status: native {status}, sandbox {sandbox_status}")
    difference = difflib.unified_diff(out.splitlines(), sandbox_out.splitlines(), "native", "sandbox", lineterm="", n=1)
    print("\n".join(list(difference)[:200]))
    show("stderr of the sandbox", sandbox_err)
    sys.exit(1)


if __name__ == "__main__":
    main()
