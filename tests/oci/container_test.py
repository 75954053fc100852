#!/usr/bin/env python3
"""What container managers ask of create, start and exec: terminals by socket, pid files, detached processes, hooks."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
import harness  # noqa: E402
from bad_input_test import setting  # noqa: E402
from console import ConsoleSocket  # noqa: E402

SLEEP = ("/bin/sleep", "300")
MORE_APPLETS = ("tty", "stty", "ls", "stat", "touch", "mkdir", "mount", "env", "readlink", "kill", "ps", "head", "cp", "grep")


class ContainerTest(harness.RunscTest):
    def setUp(self):
        super().setUp()
        self.closing = []

    def tearDown(self):
        for thing in self.closing:
            thing.close()
        self.run_tool("delete", "--force", self.id)
        super().tearDown()

    def bundle(self, *changes, args=SLEEP):
        def change(config):
            for c in changes:
                c(config)

        path = super().bundle(change, args)
        for applet in MORE_APPLETS:
            if not (path / "rootfs/bin" / applet).is_symlink():
                os.symlink("busybox", path / "rootfs/bin" / applet)
        return path

    def succeed(self, *args, **options):
        result = self.run_tool(*args, **options)
        self.assertEqual(result.code, 0, result)
        return result

    def create(self, *changes, args=SLEEP, options=()):
        self.succeed("create", "--bundle", self.bundle(*changes, args=args), *options, self.id)

    def start(self, *changes, args=SLEEP, options=()):
        self.create(*changes, args=args, options=options)
        self.succeed("start", self.id)

    def console_socket(self):
        sock = ConsoleSocket(self.directory / "console.sock")
        self.closing.append(sock)
        return sock

    def master(self, sock):
        console = sock.receive()
        self.closing.append(console)
        return console

    def wait_gone(self, pid):
        """A process that was reparented to us has ended: its wait status."""
        end = time.monotonic() + harness.LIMIT
        while time.monotonic() < end:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return status
            time.sleep(0.02)
        self.fail(f"process {pid} does not end")

    def expect(self, text, path):
        """Until `path` has `text`."""
        end = time.monotonic() + harness.LIMIT
        while time.monotonic() < end:
            if path.exists() and text in path.read_text():
                return
            time.sleep(0.02)
        self.fail(f"{path} does not get {text!r}: {path.read_text() if path.exists() else 'not there'}")


TERMINAL = setting("process.terminal", True)


class ConsoleOfContainer(ContainerTest):
    def run_shell(self, *changes, args=("/bin/sh", "-i")):
        sock = self.console_socket()
        self.start(TERMINAL, setting("process.env", ["PATH=/bin", "PS1=inside> "]), *changes, args=args,
                   options=("--console-socket", sock.path))
        return self.master(sock)

    def test_shell(self):
        console = self.run_shell()
        console.expect("inside> ")
        console.type("echo a''b\n")
        console.expect("ab\n")
        console.type("exit 4\n")
        console.expect_end()
        self.wait_for_status("stopped")

    def test_size_is_set_before_the_program_runs(self):
        sock = self.console_socket()
        self.create(TERMINAL, setting("process.consoleSize", {"height": 41, "width": 93}), args=("/bin/stty", "size"),
                    options=("--console-socket", sock.path))
        console = self.master(sock)
        self.assertEqual(console.size(), (41, 93))
        self.succeed("start", self.id)
        self.assertEqual(console.expect_end(), "41 93\n")

    def test_size_without_terminal_is_ignored(self):
        self.start(setting("process.consoleSize", {"height": 41, "width": 93}))

    def test_window_change(self):
        console = self.run_shell(args=("/bin/sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"))
        console.expect("ready\n")
        console.resize(50, 120)
        console.expect("50 120\n")

    def test_interrupt_and_job_control(self):
        console = self.run_shell()
        console.expect("inside> ")
        # The job says itself that it runs: by then it has the terminal.
        console.type("sh -c 'echo go; exec sleep 100'\n")
        console.expect("\ngo\n")
        console.type("\x03")
        console.expect("inside> ")
        console.type("echo $?\n")
        console.expect("130\n")
        console.type("sh -c 'echo go; exec cat'\n")
        console.expect("\ngo\n")
        console.type("\x1a")
        console.expect("Stopped")
        console.expect("inside> ")
        console.type("fg\n")
        console.expect("cat.*\n")
        console.type("hello\n")
        console.expect("hello\nhello\n")
        console.type("\x04")
        console.expect("inside> ")
        console.type("exit\n")
        console.expect_end()

    def test_hang_up(self):
        console = self.run_shell(args=("/bin/sh", "-c", "trap 'echo hup >/seen; exit 5' HUP; echo ready; while :; do sleep 0.1; done"))
        console.expect("ready\n")
        console.close()
        self.wait_for_status("stopped")
        self.assertEqual((self.directory / "bundle/rootfs/seen").read_text(), "hup\n")

    def test_names_of_the_terminal(self):
        console = self.run_shell(args=("/bin/sh", "-c", "tty; ls -l /proc/self/fd/0; echo through >/dev/tty; echo by name >/dev/console; test -c /dev/console && echo device"))
        shown = console.expect_end()
        self.assertIn("/dev/console\n", shown)
        self.assertIn("-> /dev/console\n", shown)
        for text in ("through\n", "by name\n", "device\n"):
            self.assertIn(text, shown)

    def test_settings_are_the_terminals_own(self):
        console = self.run_shell(args=("/bin/sh", "-c", "stty -echo; stty -a"))
        self.assertIn("-echo", console.expect_end())

    def test_another_user_owns_it(self):
        console = self.run_shell(setting("process.user", {"uid": 1000, "gid": 1000}),
                                 args=("/bin/sh", "-c", "echo one >/dev/console; echo two >/proc/self/fd/1; stat -c %u /dev/console"))
        self.assertEqual(console.expect_end(), "one\ntwo\n1000\n")

    def test_mismatch_is_refused(self):
        sock = self.console_socket()
        bundle = self.bundle()
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, "--console-socket", sock.path, self.id), "terminal")
        bundle = self.bundle(TERMINAL)
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, self.id), "console-socket")
        self.expect_refusal(self.run_tool("run", "--bundle", bundle, "--console-socket", sock.path, self.id), "console-socket")
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, "--console-socket", self.directory / "none", self.id),
                            "none", "no such file")
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, "--console-socket", self.directory / ("n" * 120), self.id),
                            "longer than")

    def test_run_detached(self):
        sock = self.console_socket()
        bundle = self.bundle(TERMINAL, args=("/bin/sh", "-c", "echo hello; read line; exit 3"))
        self.succeed("run", "--detach", "--bundle", bundle, "--console-socket", sock.path, self.id)
        console = self.master(sock)
        console.expect("hello\n")
        console.type("\n")
        console.expect_end()
        self.wait_for_status("stopped")


class PidFile(ContainerTest):
    def read_pid(self, path):
        text = path.read_text()
        self.assertRegex(text, r"^\d+$")
        return int(text)

    def test_create(self):
        path = self.directory / "pid"
        self.create(options=("--pid-file", path))
        pid = self.read_pid(path)
        self.assertEqual(json.loads(self.run_tool("state", self.id).out)["pid"], pid)
        # Our child now: the command that made it is gone, and nothing is between.
        self.assertEqual(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1], str(os.getpid()))
        self.assertTrue(os.readlink(f"/proc/{pid}/ns/net"))
        self.succeed("start", self.id)
        self.succeed("kill", self.id, "KILL")
        self.assertEqual(os.WTERMSIG(self.wait_gone(pid)), signal.SIGKILL)

    def test_status_of_init(self):
        path = self.directory / "pid"
        self.start(args=("/bin/sh", "-c", "exit 37"), options=("--pid-file", path))
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(self.read_pid(path))), 37)

    def test_relative_path(self):
        bundle = self.bundle()
        process = subprocess.run(self.command("create", "--bundle", bundle, "--pid-file", "here", self.id), cwd=self.directory,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=harness.LIMIT, check=True)
        self.read_pid(self.directory / "here")
        self.assertEqual(process.returncode, 0)

    def test_unwritable(self):
        bundle = self.bundle()
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, "--pid-file", self.directory / "no/pid", self.id), "pid-file")
        self.assertEqual(self.run_tool("list", "-q").out, "")

    def test_run(self):
        path = self.directory / "pid"
        bundle = self.bundle()
        self.succeed("run", "--detach", "--bundle", bundle, "--pid-file", path, self.id)
        pid = self.read_pid(path)
        os.kill(pid, signal.SIGKILL)  # the container's pid is the container
        self.wait_gone(pid)
        self.assertEqual(json.loads(self.run_tool("state", self.id).out)["status"], "stopped")

    def test_a_killed_create_leaves_nothing(self):
        hook = {"path": "/bin/sleep", "args": ["sleep", "0.5"]}
        bundle = self.bundle(setting("hooks", {"createRuntime": [hook]}))
        command = self.start_tool("create", "--bundle", bundle, self.id)
        time.sleep(0.25)
        command.kill()
        command.wait()
        time.sleep(0.5)
        self.succeed("delete", "--force", self.id)
        self.expect_nothing_left()


class ExecDetached(ContainerTest):
    def exec_detached(self, *args, options=()):
        path = self.directory / "exec.pid"
        self.succeed("exec", "--detach", "--pid-file", path, *options, self.id, *args)
        return int(path.read_text())

    def test_exit_status(self):
        self.start()
        pid = self.exec_detached("/bin/sh", "-c", "sleep 0.2; exit 9")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), 9)

    def test_death_by_signal(self):
        self.start()
        pid = self.exec_detached("/bin/sh", "-c", "kill -TERM $$")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), -signal.SIGTERM)

    def test_signals_reach_the_process(self):
        self.start()
        pid = self.exec_detached("/bin/sh", "-c", "trap 'exit 21' USR1; touch /up; while :; do sleep 0.05; done")
        self.expect("", self.directory / "bundle/rootfs/up")
        os.kill(pid, signal.SIGUSR1)
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), 21)

    def test_kill_reaches_the_process(self):
        self.start()
        pid = self.exec_detached("/bin/sh", "-c", "echo $$ >/pid; exec sleep 100")
        self.expect("\n", self.directory / "bundle/rootfs/pid")
        inside = (self.directory / "bundle/rootfs/pid").read_text().strip()
        os.kill(pid, signal.SIGKILL)
        self.wait_gone(pid)
        for _ in range(100):
            if self.run_tool("exec", self.id, "/bin/kill", "-0", inside).code != 0:
                return
            time.sleep(0.05)
        self.fail("the process in the container goes on")

    def test_end_of_the_container(self):
        self.start()
        pid = self.exec_detached("/bin/sleep", "100")
        self.succeed("kill", self.id, "KILL")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), -signal.SIGKILL)
        self.wait_for_status("stopped")

    def test_process_file(self):
        self.start()
        path = self.directory / "process.json"
        path.write_text(json.dumps({"args": ["/bin/sh", "-c", "env; pwd; exit 3"], "cwd": "/tmp", "env": ["PATH=/bin", "A=b"],
                                    "user": {"uid": 5, "gid": 6}}))
        result = self.run_tool("exec", "--process", path, self.id)
        self.assertEqual(result.code, 3, result)
        self.assertIn("A=b\n", result.out)
        self.assertIn("\n/tmp\n", result.out)

    def test_output_ends_with_the_process(self):
        self.start()
        read, write = os.pipe()
        path = self.directory / "exec.pid"
        process = subprocess.Popen(self.command("exec", "--detach", "--pid-file", path, self.id, "/bin/sh", "-c", "sleep 0.2; echo end"),
                                   stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.DEVNULL)
        os.close(write)
        self.assertEqual(process.wait(harness.LIMIT), 0)
        with os.fdopen(read) as source:
            self.assertEqual(source.read(), "end\n")
        self.wait_gone(int(path.read_text()))

    def test_missing_executable(self):
        self.start()
        self.expect_refusal(self.run_tool("exec", "--detach", self.id, "/bin/none"), "no such file or directory", code=255)
        self.expect_refusal(self.run_tool("exec", self.id, "none"), "executable file not found", code=255)

    def test_terminal(self):
        self.start()
        sock = self.console_socket()
        pid = self.exec_detached("/bin/sh", "-i", options=("--tty", "--console-socket", sock.path))
        console = self.master(sock)
        console.expect("# ")
        # The job says itself that it runs: by then it has the terminal.
        console.type("sh -c 'echo go; exec sleep 100'\n")
        console.expect("\ngo\n")
        console.type("\x03")
        console.expect("# ")
        console.resize(44, 111)
        console.type("stty size\n")
        console.expect("44 111\n")
        console.type("exit 8\n")
        console.expect_end()
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), 8)

    def test_hang_up_of_the_terminal(self):
        self.start()
        sock = self.console_socket()
        pid = self.exec_detached("/bin/sh", "-c", "echo ready; sleep 100", options=("--tty", "--console-socket", sock.path))
        console = self.master(sock)
        console.expect("ready\n")
        console.close()
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_gone(pid)), -signal.SIGHUP)

    def test_terminal_mismatch(self):
        self.start()
        sock = self.console_socket()
        for options in (("--detach", "--tty"), ("--console-socket", sock.path), ("--tty", "--console-socket", sock.path),
                        ("--detach", "--console-socket", sock.path)):
            self.expect_refusal(self.run_tool("exec", *options, self.id, "/bin/true"), "console-socket", code=255)


class Hooks(ContainerTest):
    KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

    def setUp(self):
        super().setUp()
        self.log = self.directory / "log"

    def hook(self, name, script="", **more):
        """A host's program that notes its name and its stdin."""
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} >>{self.log}; cat >{self.log}.{name}; {script}"],
                "env": ["PATH=/usr/bin:/bin"], **more}

    def inner(self, name, script="", **more):
        """The same in the container, whose root has no such folder."""
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {name} >>/log; cat >/log.{name}; {script}"],
                "env": ["PATH=/bin"], **more}

    def all_hooks(self):
        hooks = {kind: [self.hook(kind)] for kind in self.KINDS}
        hooks["startContainer"] = [self.inner("startContainer")]
        return setting("hooks", hooks)

    def states(self):
        return {kind: json.loads((self.log.parent / f"log.{kind}").read_text()) for kind in self.KINDS
                if (self.log.parent / f"log.{kind}").exists()}

    def test_order_and_state(self):
        self.create(self.all_hooks(), setting("annotations", {"a": "b"}), args=("/bin/sh", "-c", "echo init >>/log; sleep 300"))
        self.assertEqual(self.log.read_text().split(), ["prestart", "createRuntime", "createContainer"])
        inner_log = self.directory / "bundle/rootfs/log"
        self.assertFalse(inner_log.exists())
        pid = json.loads(self.run_tool("state", self.id).out)["pid"]
        self.succeed("start", self.id)
        self.expect("init", inner_log)
        self.assertEqual(inner_log.read_text().split(), ["startContainer", "init"])
        self.succeed("delete", "--force", self.id)
        self.assertEqual(self.log.read_text().split(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
        states = self.states()
        self.assertEqual({kind: s["status"] for kind, s in states.items()},
                         {"prestart": "creating", "createRuntime": "creating", "createContainer": "creating",
                          "poststart": "running", "poststop": "stopped"})
        for kind, state in states.items():
            self.assertEqual((state["id"], state["bundle"], state["annotations"]), (self.id, str(self.directory / "bundle"), {"a": "b"}))
            self.assertEqual(state.get("pid"), 0 if kind == "poststop" else pid, kind)
        inside = json.loads((self.directory / "bundle/rootfs/log.startContainer").read_text())
        self.assertEqual((inside["id"], inside["status"], inside["pid"]), (self.id, "created", 1))

    def test_attached_run_has_all_of_them(self):
        bundle = self.bundle(self.all_hooks(), args=("/bin/sh", "-c", "echo init >>/log"))
        self.succeed("run", "--bundle", bundle, self.id)
        self.assertEqual(self.log.read_text().split(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
        self.assertEqual((bundle / "rootfs/log").read_text().split(), ["startContainer", "init"])

    def test_in_order_until_one_fails(self):
        for kind in ("prestart", "createRuntime", "createContainer"):
            for command in ("create", "run"):
                with self.subTest(kind=kind, command=command):
                    self.log.unlink(missing_ok=True)
                    hooks = {kind: [self.hook("one"), self.hook("two", "echo no luck >&2; exit 5"), self.hook("three")],
                             "poststop": [self.hook("stopped")]}
                    bundle = self.bundle(setting("hooks", hooks), args=("/bin/sh", "-c", "echo ran >/ran"))
                    self.expect_refusal(self.run_tool(command, "--bundle", bundle, self.id), f"hooks.{kind}[1]", "exit status 5", "no luck")
                    self.assertEqual(self.log.read_text().split(), ["one", "two", "stopped"])
                    self.assertEqual(self.run_tool("list", "-q").out, "")
                    self.assertFalse((bundle / "rootfs/ran").exists())

    def test_start_container_fails(self):
        hooks = {"startContainer": [self.inner("one", "echo no luck; exit 6"), self.inner("two")], "poststart": [self.hook("poststart")],
                 "poststop": [self.hook("poststop")]}
        self.create(setting("hooks", hooks), args=("/bin/sh", "-c", "echo ran >/ran"))
        self.expect_refusal(self.run_tool("start", self.id), "hooks.startContainer[0]", "exit status 6", "no luck")
        self.wait_for_status("stopped")
        self.succeed("delete", self.id)
        self.assertEqual(self.log.read_text().split(), ["poststop"])
        root = self.directory / "bundle/rootfs"
        self.assertEqual((root / "log").read_text().split(), ["one"])
        self.assertFalse((root / "ran").exists())

    def test_start_container_fails_in_an_attached_run(self):
        hooks = {"startContainer": [self.inner("one", "exit 6")], "poststop": [self.hook("poststop")]}
        bundle = self.bundle(setting("hooks", hooks), args=("/bin/sh", "-c", "echo ran >/ran"))
        self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), "hooks.startContainer[0]", "exit status 6")
        self.assertEqual(self.log.read_text().split(), ["poststop"])
        self.assertFalse((bundle / "rootfs/ran").exists())

    def test_start_container_runs_as_the_process_does(self):
        hooks = {"startContainer": [{"path": "/bin/sh", "env": ["X=y"],
                                     "args": ["sh", "-c", "echo $0 $X $PATH $(/bin/id -u) $(/bin/busybox pwd) >/tmp/seen; /bin/busybox grep Cap /proc/self/status >>/tmp/seen", "name"]}]}
        (self.bundle() / "rootfs/tmp").chmod(0o1777)
        self.start(setting("hooks", hooks), setting("process.user", {"uid": 7, "gid": 8}), setting("process.cwd", "/tmp"),
                   setting("process.capabilities", {k: ["CAP_KILL"] for k in ("bounding", "permitted")}))
        seen = (self.directory / "bundle/rootfs/tmp/seen").read_text()
        self.assertRegex(seen.splitlines()[0], "^name y .* 7 /tmp$")  # busybox has a PATH of its own
        self.assertIn("CapBnd:\t0000000000000020", seen)

    def test_start_container_hook_that_is_not_there(self):
        self.create(setting("hooks", {"startContainer": [{"path": "/bin/none"}]}))
        self.expect_refusal(self.run_tool("start", self.id), "hooks.startContainer[0]", "/bin/none", "no such file")

    def test_timeouts(self):
        slow = {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}
        for kind in ("createRuntime", "createContainer", "startContainer"):
            with self.subTest(kind=kind):
                bundle = self.bundle(setting("hooks", {kind: [slow]}))
                before = time.monotonic()
                self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), f"hooks.{kind}[0]", "1 s")
                self.assertLess(time.monotonic() - before, 10)

    def test_later_failures_are_warnings(self):
        hooks = {"poststart": [self.hook("a", "exit 1"), self.hook("b")], "poststop": [self.hook("c", "exit 2"), self.hook("d")]}
        self.create(setting("hooks", hooks))
        started = self.succeed("start", self.id)
        self.assertIn("warning: hooks.poststart[0]", started.err)
        self.assertEqual(json.loads(self.run_tool("state", self.id).out)["status"], "running")
        deleted = self.succeed("delete", "--force", self.id)
        self.assertIn("warning: hooks.poststop[0]", deleted.err)
        self.assertEqual(self.log.read_text().split(), ["a", "b", "c", "d"])

    def test_hooks_may_ask_the_runtime(self):
        ask = " ".join(self.command("state", self.id)) + f" >>{self.log}"
        self.start(setting("hooks", {"poststart": [self.hook("x", ask, timeout=20)]}))
        self.assertEqual(json.loads(self.log.read_text().split("\n", 1)[1])["status"], "running")

    def test_kill_and_delete_do_not_wait_for_hooks(self):
        slow = {"path": "/bin/sleep", "args": ["sleep", "100"]}
        for command in (("kill", self.id, "KILL"), ("delete", "--force", self.id)):
            with self.subTest(command=command[0]):
                self.create(setting("hooks", {"startContainer": [slow]}))
                start = self.start_tool("start", self.id)
                time.sleep(0.5)
                before = time.monotonic()
                self.succeed(*command)
                self.assertEqual(start.wait(harness.LIMIT), 1)
                self.assertLess(time.monotonic() - before, 8)
                self.run_tool("delete", "--force", self.id)

    def test_hooks_prepare_the_root(self):
        """What they make there is there for init, the program itself included."""
        root = self.directory / "bundle/rootfs"
        hooks = {"createRuntime": [self.hook("x", f"printf '#!/bin/sh\\ncat /etc/made\\n' >{root}/bin/made; chmod +x {root}/bin/made; echo text >{root}/etc/made")]}
        bundle = self.bundle(setting("hooks", hooks), args=("/bin/made",))
        self.assertEqual(self.succeed("run", "--bundle", bundle, self.id).out, "text\n")

    def test_create_container_mounts_for_the_container_alone(self):
        root = self.directory / "bundle/rootfs"
        script = f"mount -t tmpfs none {root}/tmp && echo mounted >{root}/tmp/file && readlink /proc/self/ns/mnt >{self.log}.ns"
        hooks = {"createRuntime": [self.hook("r", f"readlink /proc/self/ns/mnt >{self.log}.rns")],
                 "createContainer": [self.hook("c", script)]}
        bundle = self.bundle(setting("hooks", hooks), args=("/bin/cat", "/tmp/file"))
        self.assertEqual(self.succeed("run", "--bundle", bundle, self.id).out, "mounted\n")
        self.assertFalse((root / "tmp/file").exists())
        self.assertEqual((self.directory / "log.rns").read_text().strip(), os.readlink("/proc/self/ns/mnt"))
        self.assertNotEqual((self.directory / "log.ns").read_text(), (self.directory / "log.rns").read_text())

    def test_signals_and_descriptors_of_a_hook(self):
        """A hook starts as a program of the host does: nothing blocked, no descriptor of ours."""
        script = f"grep SigBlk /proc/self/status >{self.log}.s; ls /proc/self/fd >>{self.log}.s"
        for kind in ("createRuntime", "createContainer"):
            with self.subTest(kind=kind):
                bundle = self.bundle(setting("hooks", {kind: [self.hook("x", script)]}), args=("/bin/true",))
                self.succeed("run", "--bundle", bundle, self.id)
                lines = (self.directory / "log.s").read_text().splitlines()
                self.assertRegex(lines[0], r"SigBlk:\s*0+$")
                self.assertEqual(lines[1:], ["0", "1", "2", "3"])


class Paths(ContainerTest):
    def run_script(self, script, *changes):
        result = self.run_tool("run", "--bundle", self.bundle(*changes, args=("/bin/sh", "-c", script)), self.id)
        return result.out

    def test_masked(self):
        (self.bundle() / "rootfs/etc/secret").write_text("secret\n")
        (self.bundle() / "rootfs/etc/folder").mkdir()
        (self.bundle() / "rootfs/etc/folder/file").write_text("secret\n")
        os.symlink("/etc/secret", self.bundle() / "rootfs/etc/link")
        paths = ["/etc/secret", "/etc/folder", "/proc/kcore", "/no/such", "/proc/scsi", "/etc/folder/none"]
        out = self.run_script("cat /etc/secret /etc/link; ls -a /etc/folder; touch /etc/folder/new 2>&1; cat /proc/kcore | head -c 1; stat -c %F /etc/secret;"
                              "cat /etc/folder/file 2>&1", setting("linux.maskedPaths", paths))
        self.assertNotIn("secret\n", out.replace("/etc/secret\n", ""))
        self.assertIn("touch: /etc/folder/new: Read-only file system", out)
        self.assertIn("character special file", out)
        self.assertIn("No such file or directory", out)

    def test_masked_through_a_link(self):
        (self.bundle() / "rootfs/etc/secret").write_text("secret\n")
        os.symlink("/etc/secret", self.bundle() / "rootfs/etc/link")
        self.assertEqual(self.run_script("cat /etc/secret", setting("linux.maskedPaths", ["/etc/link"])), "")

    def test_read_only(self):
        (self.bundle() / "rootfs/etc/folder/below").mkdir(parents=True)
        (self.bundle() / "rootfs/etc/file").write_text("old\n")
        out = self.run_script("for f in /etc/folder/x /etc/folder/below/x /etc/file /proc/sys/kernel/hostname; do echo new >$f && echo wrote $f; done 2>&1; cat /etc/file;"
                              "echo new >/etc/other && echo fine",
                              setting("linux.readonlyPaths", ["/etc/folder", "/etc/file", "/proc/sys", "/no/such"]))
        self.assertNotIn("wrote", out)
        self.assertEqual(out.count("Read-only file system"), 4, out)
        self.assertTrue(out.endswith("old\nfine\n"), out)
        self.assertEqual((self.directory / "bundle/rootfs/etc/file").read_text(), "old\n")

    def test_read_only_keeps_the_mounts_below(self):
        out = self.run_script("cat /proc/sys/kernel/ostype; ls /dev/shm >/dev/null && echo there; echo x >/dev/null && echo written",
                              setting("linux.readonlyPaths", ["/proc/sys", "/dev"]))
        self.assertEqual(out, "Linux\nthere\nwritten\n")

    def test_relative_paths_are_refused(self):
        for key in ("maskedPaths", "readonlyPaths"):
            bundle = self.bundle(setting(f"linux.{key}", ["etc"]), args=("/bin/true",))
            self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), f"linux.{key}[0]", "absolute")


if __name__ == "__main__":
    unittest.main(verbosity=2)
