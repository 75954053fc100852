#!/usr/bin/env python3
"""The caller's own terminal: what a user of a shell sees of `runsc do` and `runsc run` is what a native command shows.

Each case of JobControl is done twice, once with the command on the host and once with it in the sandbox, and both must
go the same way.
"""
import os
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
import harness  # noqa: E402
from terminal import END_OF_FILE, INTERRUPT, QUIT, STOP, Terminal  # noqa: E402

TSTP = ["stopped", signal.SIGTSTP]
CAT = ["/bin/sh", "-c", "echo ready; exec cat"]
# What waits for signals in Python looks again and again: one that comes between the interpreter's last look and
# pause(2) would wait for the next one. Natively too.
# Prints the window's size at each SIGWINCH.
WATCH_SIZE = """
import os, signal, time
signal.signal(signal.SIGWINCH, lambda *a: os.write(1, b"%d %d\\n" % tuple(reversed(os.get_terminal_size(1)))))
os.write(1, b"ready\\n")
while True:
    time.sleep(0.02)
"""
# Reads one byte in raw mode.
READ_RAW = """
import os, termios, tty
old = termios.tcgetattr(0)
tty.setraw(0)
os.write(1, b"raw\\n")
byte = os.read(0, 1)
termios.tcsetattr(0, termios.TCSAFLUSH, old)
print(byte)
"""
# Says what signal came, and ends at the second one.
CATCH = """
import os, signal, sys, time
def say(number, frame):
    os.write(1, b"caught %d\\n" % number)
signal.signal(int(sys.argv[1]), say)
os.write(1, b"ready\\n")
while True:
    time.sleep(0.02)
"""


def python(program, *arguments):
    return ["python3", "-c", program, *arguments]


class TerminalTest(harness.RunscTest):
    def setUp(self):
        super().setUp()
        self.terminals = []

    def tearDown(self):
        for terminal in self.terminals:
            terminal.close()
        super().tearDown()

    def terminal(self, *arguments, **options):
        terminal = Terminal(*arguments, **options)
        self.terminals.append(terminal)
        return terminal


def on_both(test):
    """Runs test(self, terminal, prefix) for a command on the host and for one in the sandbox, by what is put before it."""

    def run(self):
        for name, prefix in (("native", []), ("sandbox", self.command("do", "--"))):
            with self.subTest(where=name):
                test(self, self.terminal(), prefix)

    return run


class JobControl(TerminalTest):
    def stop_and_foreground(self, terminal):
        terminal.type(STOP)
        self.assertEqual(terminal.order("wait"), TSTP)
        terminal.order("foreground")

    @on_both
    def test_interrupt(self, terminal, prefix):
        terminal.start([*prefix, *CAT])
        terminal.type(INTERRUPT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGINT])

    @on_both
    def test_quit(self, terminal, prefix):
        terminal.start([*prefix, *CAT])
        terminal.type(QUIT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGQUIT])

    @on_both
    def test_interrupt_is_caught(self, terminal, prefix):
        terminal.start([*prefix, *python(CATCH, "2")])
        terminal.type(INTERRUPT)
        terminal.expect("caught 2\n")
        terminal.type(QUIT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGQUIT])

    @on_both
    def test_interrupt_reaches_the_whole_job(self, terminal, prefix):
        script = "trap 'exit 3' INT; python3 -c \"$0\" 2"
        terminal.start([*prefix, "/bin/sh", "-c", script, CATCH])
        terminal.type(INTERRUPT)
        terminal.expect("caught 2\n")
        terminal.order("kill", signal.SIGKILL)
        terminal.order("wait")

    @on_both
    def test_interrupt_without_a_terminal_among_the_streams(self, terminal, prefix):
        output = self.directory / "out"
        output.write_text("")
        inner = "trap 'exit 3' INT; python3 -c \"$0\" 2"
        terminal.start(["/bin/sh", "-c", f'exec "$@" </dev/null >>{output} 2>&1', "sh", *prefix, "/bin/sh", "-c", inner, CATCH], None)
        for text in ("ready", "caught 2"):
            end = time.monotonic() + harness.LIMIT
            while text not in output.read_text() and time.monotonic() < end:
                time.sleep(0.02)
            self.assertIn(text, output.read_text())
            terminal.type(INTERRUPT)
        terminal.order("kill", signal.SIGKILL)
        terminal.order("wait")

    @on_both
    def test_end_of_file(self, terminal, prefix):
        terminal.start([*prefix, *CAT])
        terminal.type("hello\n" + END_OF_FILE)
        terminal.expect("hello\nhello\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_stop_and_foreground(self, terminal, prefix):
        terminal.start([*prefix, *CAT])
        for _ in range(3):
            self.stop_and_foreground(terminal)
            terminal.type("hello\n")
            terminal.expect("hello\nhello\n")
        terminal.type(END_OF_FILE)
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_all_of_a_job_stops_and_goes_on(self, terminal, prefix):
        terminal.start([*prefix, "/bin/sh", "-c", "echo ready; cat | cat; echo end"])
        # A shell that waits in vfork(2) for a child that was stopped before its execve cannot stop itself.
        time.sleep(0.3)
        self.stop_and_foreground(terminal)
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(END_OF_FILE)
        terminal.expect("end\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_stop_and_background(self, terminal, prefix):
        terminal.start([*prefix, *python("import time; print('ready', flush=True); time.sleep(0.5); print('done')")])
        terminal.type(STOP)
        self.assertEqual(terminal.order("wait"), TSTP)
        terminal.order("background")
        terminal.expect("done\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_stop_and_continue_are_caught(self, terminal, prefix):
        terminal.start([*prefix, *python(CATCH, str(int(signal.SIGTSTP)))])
        terminal.type(STOP)
        terminal.expect(f"caught {int(signal.SIGTSTP)}\n")
        terminal.type(INTERRUPT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGINT])
        terminal.start([*prefix, *python(CATCH, str(int(signal.SIGCONT)))])
        self.stop_and_foreground(terminal)
        terminal.expect(f"caught {int(signal.SIGCONT)}\n")
        terminal.type(INTERRUPT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGINT])

    @on_both
    def test_a_command_that_stops_itself(self, terminal, prefix):
        for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            terminal.start([*prefix, "/bin/sh", "-c", f"echo ready; kill -{number.name[3:]} $$; echo on"])
            self.assertEqual(terminal.order("wait"), ["stopped", number])
            terminal.order("foreground")
            terminal.expect("on\n")
            self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_kill_while_stopped(self, terminal, prefix):
        for number in (signal.SIGTERM, signal.SIGKILL):
            terminal.start([*prefix, *CAT])
            terminal.type(STOP)
            self.assertEqual(terminal.order("wait"), TSTP)
            terminal.order("kill", number)
            if number != signal.SIGKILL:
                terminal.order("background")
            self.assertEqual(terminal.order("wait"), ["killed", number])

    @on_both
    def test_a_background_reader_stops(self, terminal, prefix):
        terminal.start([*prefix, *CAT], foreground=False)
        self.assertEqual(terminal.order("wait"), ["stopped", signal.SIGTTIN])
        terminal.order("background")
        self.assertEqual(terminal.order("wait"), ["stopped", signal.SIGTTIN])
        terminal.order("foreground")
        terminal.type("hello\n" + END_OF_FILE)
        terminal.expect("hello\nhello\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_a_running_job_may_read_once_it_has_the_terminal(self, terminal, prefix):
        terminal.start([*prefix, "/bin/sh", "-c", "echo ready; sleep 0.5; exec cat"], foreground=False)
        terminal.order("give_terminal")
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(END_OF_FILE)
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_a_background_job_may_not_change_the_terminal(self, terminal, prefix):
        before = terminal.settings()
        terminal.start([*prefix, "/bin/sh", "-c", "echo ready; stty -icanon; echo changed"], foreground=False)
        self.assertEqual(terminal.order("wait"), ["stopped", signal.SIGTTOU])
        self.assertEqual(terminal.settings(), before)
        terminal.order("foreground")
        terminal.expect("changed\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])
        self.assertNotEqual(terminal.settings(), before)

    @on_both
    def test_a_background_job_may_write(self, terminal, prefix):
        terminal.start([*prefix, "/bin/echo", "ready"], foreground=False)
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    @on_both
    def test_window_size(self, terminal, prefix):
        terminal.resize(31, 97)
        self.assertEqual(terminal.run([*prefix, "stty", "size"]), ("31 97\n", ["exited", 0]))

    @on_both
    def test_window_change(self, terminal, prefix):
        terminal.start([*prefix, *python(WATCH_SIZE)])
        for size in ((33, 99), (34, 100)):
            terminal.resize(*size)
            terminal.expect("%d %d\n" % size)
        terminal.type(INTERRUPT)
        terminal.order("wait")

    @on_both
    def test_window_size_set_inside(self, terminal, prefix):
        script = "python3 -c \"$0\" & sleep 0.5; stty rows 40; sleep 0.3; kill $!"
        output, _ = terminal.run([*prefix, "/bin/sh", "-c", script, WATCH_SIZE])
        # Once, although the caller's terminal and the one inside are the same.
        self.assertEqual(output.count("40 80\n"), 1, output)

    @on_both
    def test_settings_of_a_command_stay(self, terminal, prefix):
        terminal.run([*prefix, "stty", "-iexten", "-echo"])
        self.assertIn("-echo", terminal.run(["stty", "-a"])[0])
        self.assertIn("-iexten", terminal.run([*prefix, "stty", "-a"])[0])

    @on_both
    def test_settings_that_a_command_restores(self, terminal, prefix):
        before = terminal.settings()
        terminal.start([*prefix, *python(READ_RAW)], "raw")
        terminal.type(INTERRUPT)  # a byte like others now
        terminal.expect(r"b'\\x03'\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])
        self.assertEqual(terminal.settings(), before)

    @on_both
    def test_dev_tty(self, terminal, prefix):
        output, _ = terminal.run([*prefix, "/bin/sh", "-c", "exec >/dev/null; echo through >/dev/tty"])
        self.assertEqual(output, "through\n")
        terminal.start([*prefix, "/bin/sh", "-c", "exec </dev/null; echo ready; read line </dev/tty; echo got $line"])
        terminal.type("words\n")
        terminal.expect("got words\n")
        terminal.order("wait")

    @on_both
    def test_only_one_descriptor_is_the_terminal(self, terminal, prefix):
        line = " ".join([*prefix, "sh -c 'echo ready >&2; exec cat' >/dev/null </dev/zero"])
        terminal.start(["/bin/sh", "-c", "exec " + line])
        self.stop_and_foreground(terminal)
        terminal.type(INTERRUPT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGINT])

    @on_both
    def test_members_of_a_pipeline(self, terminal, prefix):
        # Two sandboxes and a command of the host, in one process group below a shell of it.
        before = " ".join(prefix)
        terminal.start(["/bin/sh", "-c", f"{before} sh -c 'echo ready; exec cat' | cat | {before} cat; echo end"])
        time.sleep(0.3)
        self.stop_and_foreground(terminal)
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(END_OF_FILE)
        terminal.expect("end\n")
        self.assertEqual(terminal.order("wait"), ["exited", 0])

    def test_the_terminal_hangs_up(self):
        for name, prefix in (("native", []), ("sandbox", self.command("do", f"--volume={self.directory}:{self.directory}", "--"))):
            with self.subTest(where=name):
                marker = self.directory / f"hung-up-{name}"
                terminal = self.terminal()
                terminal.start([*prefix, "/bin/bash", "-c",
                                f"trap 'echo yes >{marker}; exit' HUP; echo ready; while :; do sleep 0.1; done"])
                terminal.close()
                end = time.monotonic() + harness.LIMIT
                while not marker.exists() and time.monotonic() < end:
                    time.sleep(0.05)
                self.assertTrue(marker.exists())


class ShellInside(TerminalTest):
    """An interactive shell in the sandbox has job control of its own; the outer shell sees none of it."""

    def enter(self, terminal, prefix):
        terminal.start([*prefix, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], "inside> ")

    def leave(self, terminal, status=0):
        terminal.type(f"exit {status}\n")
        self.assertEqual(terminal.order("wait"), ["exited", status])

    @on_both
    def test_jobs(self, terminal, prefix):
        self.enter(terminal, prefix)
        terminal.type("cat\n")
        terminal.expect("cat\n")
        terminal.type("a\n")
        terminal.expect("a\na\n")
        terminal.type(STOP)
        terminal.expect(r"\[1\]\+ +Stopped")
        terminal.expect("inside> ")
        terminal.type("echo $?\n")
        terminal.expect("148\ninside> ")
        terminal.type("sleep 100 &\n")
        terminal.expect(r"\[2\] \d+\ninside> ")
        terminal.type("fg %1\n")
        terminal.expect("cat\n")
        terminal.type("b\n")
        terminal.expect("b\nb\n")
        terminal.type(INTERRUPT)
        terminal.expect("inside> ")
        terminal.type("echo $?\n")
        terminal.expect("130\n")
        terminal.expect("inside> ")
        terminal.type("kill %2; wait %2; echo $?\n")
        terminal.expect("143\n")
        terminal.expect("inside> ")
        self.leave(terminal, 9)

    @on_both
    def test_interrupt_at_the_prompt(self, terminal, prefix):
        self.enter(terminal, prefix)
        terminal.type("half a line" + INTERRUPT)
        terminal.expect("inside> ")
        terminal.type("echo $?\n")
        terminal.expect("130\n")
        self.leave(terminal)

    @on_both
    def test_interrupts_at_once(self, terminal, prefix):
        # Between its last look for a signal and its read(2) a shell is deaf: on Linux for a few nanoseconds, so that one
        # interrupt in some hundred thousand is lost.
        self.enter(terminal, prefix)
        lost = 0
        for _ in range(5000):
            terminal.type(INTERRUPT)
            try:
                terminal.expect("inside> ", limit=2)
            except AssertionError:
                lost += 1
                terminal.type(INTERRUPT)
                terminal.expect("inside> ")
        self.assertLessEqual(lost, 1)
        self.leave(terminal)

    @on_both
    def test_suspend(self, terminal, prefix):
        self.enter(terminal, prefix)
        # Not "suspend": it means its group by -1 when the shell is pid 1, which is everybody else.
        terminal.type("kill -STOP $$\n")
        self.assertEqual(terminal.order("wait"), ["stopped", signal.SIGSTOP])
        terminal.order("foreground")
        terminal.type("echo b''ack\n")
        terminal.expect("back\n")
        terminal.expect("inside> ")
        self.leave(terminal)

    @on_both
    def test_a_background_reader(self, terminal, prefix):
        self.enter(terminal, prefix)
        terminal.type("cat &\n")
        terminal.expect(r"\[1\] \d+\n")
        terminal.type("sleep 0.3; jobs\n")
        terminal.expect(r"Stopped +cat\n")
        terminal.type("fg\n")
        terminal.type("hello\n")
        terminal.expect("hello\n(?s:.*)hello\n")
        terminal.type(END_OF_FILE)
        terminal.expect("inside> ")
        self.leave(terminal)


class WithoutShell(TerminalTest):
    """runsc is the first process of a session, as under script(1) or a terminal emulator's -e: nobody can continue it."""

    @on_both
    def test_stop_is_without_effect(self, _, prefix):
        terminal = self.terminal([*prefix, *CAT])
        terminal.expect("ready\n")
        terminal.type(STOP + "hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(INTERRUPT)
        self.assertEqual(os.WTERMSIG(terminal.wait_for_leader()), signal.SIGINT)

    @on_both
    def test_hang_up(self, _, prefix):
        terminal = self.terminal([*prefix, "/bin/sh", "-c", "echo ready; exec sleep 100"])
        terminal.expect("ready\n")
        terminal.hang_up()
        self.assertEqual(os.WTERMSIG(terminal.wait_for_leader()), signal.SIGHUP)


class WithoutTerminal(TerminalTest):
    """A parent that waits for stops, without any terminal."""

    def start_child(self, prefix, script):
        process = subprocess.Popen([*prefix, "/bin/sh", "-c", script], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, process_group=0)
        self.background.append(process)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process

    def expect_stop(self, process, signo):
        end = time.monotonic() + harness.LIMIT
        pid = 0
        while pid == 0 and time.monotonic() < end:
            pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
            time.sleep(0.01)
        self.assertEqual(pid, process.pid, "no stop is seen")
        self.assertTrue(os.WIFSTOPPED(status), status)
        self.assertEqual(os.WSTOPSIG(status), signo)

    @on_both
    def test_stops_are_seen(self, _, prefix):
        process = self.start_child(prefix, "echo ready; kill -STOP $$; exit 4")
        self.expect_stop(process, signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.wait(harness.LIMIT), 4)

    @on_both
    def test_stop_signal_from_outside(self, _, prefix):
        process = self.start_child(prefix, "echo ready; while :; do sleep 0.1; done")
        process.send_signal(signal.SIGTSTP)
        self.expect_stop(process, signal.SIGTSTP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.wait(harness.LIMIT), -signal.SIGTERM)

    @on_both
    def test_kill_while_stopped(self, _, prefix):
        process = self.start_child(prefix, "echo ready; while :; do sleep 0.1; done")
        process.send_signal(signal.SIGTSTP)
        self.expect_stop(process, signal.SIGTSTP)
        process.kill()
        self.assertEqual(process.wait(harness.LIMIT), -signal.SIGKILL)

    @on_both
    def test_stop_and_continue_at_once(self, _, prefix):
        process = self.start_child(prefix, "echo ready; n=0; while [ $n -lt 60 ]; do sleep 0.02; n=$((n+1)); done; exit 6")
        for _ in range(20):
            process.send_signal(signal.SIGTSTP)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        self.assertEqual(process.wait(harness.LIMIT), 6)


class AttachedContainer(TerminalTest):
    """runsc run on the caller's terminal: process.terminal is true and there is no console socket."""

    def container(self, *args):
        def change(config):
            config["process"]["terminal"] = True
            config["process"]["env"] = ["PATH=/bin", "PS1=inside> "]

        bundle = self.bundle(change, args=args)
        for applet in ("stty", "tty", "ls", "stat"):
            if not (bundle / "rootfs/bin" / applet).is_symlink():
                os.symlink("busybox", bundle / "rootfs/bin" / applet)
        return self.command("run", "--bundle", bundle, self.id)

    def start_sleeper(self):
        bundle = self.bundle(args=("/bin/sleep", "100"))
        for args in (("create", "--bundle", bundle, self.id), ("start", self.id)):
            self.assertEqual(self.run_tool(*args).code, 0)

    def test_shell_with_jobs(self):
        terminal = self.terminal()
        terminal.start(self.container("/bin/sh", "-i"), "inside> ")
        # busybox edits lines itself: what is typed while it changes the terminal is lost.
        terminal.type("echo ready; cat\n")
        terminal.expect("\nready\n")
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(STOP)
        terminal.expect("Stopped")
        terminal.expect("inside> ")
        terminal.type("fg\n")
        terminal.expect("cat\n")
        terminal.type("again\n")
        terminal.expect("again\nagain\n")
        terminal.type(INTERRUPT)
        terminal.expect("inside> ")
        terminal.type("echo $?\n")
        terminal.expect("130\n")
        terminal.expect("inside> ")
        terminal.type("exit 5\n")
        self.assertEqual(terminal.order("wait"), ["exited", 5])

    def test_settings_are_restored(self):
        terminal = self.terminal()
        before = terminal.settings()
        self.assertEqual(terminal.run(self.container("/bin/stty", "raw", "-echo"))[1], ["exited", 0])
        self.assertEqual(terminal.settings(), before)

    def test_settings_are_restored_after_a_kill(self):
        terminal = self.terminal()
        before = terminal.settings()
        terminal.start(self.container("/bin/sh", "-c", "stty raw -echo; echo ready; exec sleep 100"), "ready")
        self.assertNotEqual(terminal.settings(), before)
        self.assertEqual(self.run_tool("kill", self.id, "KILL").code, 0)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGKILL])
        self.assertEqual(terminal.settings(), before)

    def test_starts_in_the_foreground_only(self):
        # As any program that sets up a terminal: in the background it stops before it makes anything.
        terminal = self.terminal()
        terminal.start(self.container("/bin/sh", "-c", "read line; echo got $line; exit 3"), None, foreground=False)
        self.assertEqual(terminal.order("wait"), ["stopped", signal.SIGTTOU])
        self.assertEqual(self.run_tool("list", "-q").out, "")
        terminal.order("foreground")
        terminal.type("words\n")
        terminal.expect("got words\n")
        self.assertEqual(terminal.order("wait"), ["exited", 3])

    def test_a_stop_leaves_the_container_to_others(self):
        terminal = self.terminal()
        terminal.start(self.container("/bin/sh", "-c", "echo ready; sleep 100"))
        terminal.type(STOP)
        self.assertEqual(self.run_tool("exec", self.id, "/bin/true").code, 0)
        self.assertEqual(self.run_tool("kill", self.id, "KILL").code, 0)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGKILL])

    def test_exec_with_the_callers_terminal(self):
        self.start_sleeper()
        terminal = self.terminal()
        before = terminal.settings()
        terminal.start(self.command("exec", "-t", self.id, "/bin/busybox", "sh", "-i"), "# ")
        terminal.type("echo a''b; cat\n")
        terminal.expect("ab\n")
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(INTERRUPT)
        terminal.expect("# ")
        terminal.type("busybox stty raw -echo; exit 6\n")
        self.assertEqual(terminal.order("wait"), ["exited", 6])
        self.assertEqual(terminal.settings(), before)
        self.run_tool("delete", "--force", self.id)

    def test_exec_stops_with_its_process(self):
        self.start_sleeper()
        terminal = self.terminal()
        terminal.start(self.command("exec", self.id, "/bin/sh", "-c", "echo ready; exec cat"))
        terminal.type("hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(STOP)
        self.assertEqual(terminal.order("wait"), TSTP)
        # The container goes on.
        self.assertEqual(self.run_tool("exec", self.id, "/bin/true").code, 0)
        terminal.order("foreground")
        terminal.type("again\n")
        terminal.expect("again\nagain\n")
        terminal.type(INTERRUPT)
        self.assertEqual(terminal.order("wait"), ["killed", signal.SIGINT])
        self.run_tool("delete", "--force", self.id)

    def test_stdin_must_be_a_terminal(self):
        line = self.container("/bin/true")
        result = self.run_tool(*line[line.index("run"):])
        self.expect_refusal(result, "process.terminal")


class PlainFile(TerminalTest):
    """A stdout that is a plain file is one open file description, the caller's."""

    def output(self, script):
        path = self.directory / "out"
        with open(path, "w") as out:
            subprocess.run(["/bin/bash", "-c", script], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                           timeout=harness.LIMIT, check=True, env=dict(os.environ, TOOL=" ".join(self.command("do", "--"))))
        return path.read_text()

    def test_offset_is_shared(self):
        self.assertEqual(self.output("echo 1; $TOOL /bin/echo 2; echo 3; $TOOL /bin/sh -c 'echo 4; echo 5 >&2; echo 6'; echo 7"),
                         "".join(f"{i}\n" for i in range(1, 8)))

    def test_append(self):
        path = self.directory / "log"
        path.write_text("first\n")
        with open(path, "a") as out:
            subprocess.run(self.command("do", "--", "/bin/sh", "-c", "echo second; echo third >&2"), stdout=out, stderr=out,
                           stdin=subprocess.DEVNULL, timeout=harness.LIMIT, check=True)
        self.assertEqual(path.read_text(), "first\nsecond\nthird\n")

    def test_file_size_limit(self):
        # It counts from where the caller left the offset; SIGXFSZ ends the writer (shells trap it).
        script = "exec 2>/dev/null; echo 12345; $TOOL /bin/bash -c 'ulimit -f 1; for i in {1..300}; do echo 1234 || exit 7; done'; echo $?"
        self.assertEqual(len(self.output(script)), 1024 + len(f"{128 + signal.SIGXFSZ}\n"))

    def test_input_offset_is_shared(self):
        path = self.directory / "in"
        path.write_text("one\ntwo\nthree\n")
        with open(path) as source:
            result = self.run_tool("do", "--", "/bin/sh", "-c", "read a; echo $a", stdin=source)
            self.assertEqual(result.out, "one\n")
            self.assertEqual(os.read(source.fileno(), 100), b"two\nthree\n")

    def test_opened_again_by_name(self):
        # As on the host: a description of its own, with an offset of its own.
        for prefix in ("", "$TOOL "):
            with self.subTest(prefix=prefix):
                script = "sh -c 'echo aaaa; echo bb >/dev/stdout; echo c >>/dev/stdout; echo dd' 2>&1"
                self.assertEqual(self.output(prefix + script), "bb\nc\ndd\n")

    def test_run_in_a_container(self):
        bundle = self.bundle(args=("/bin/sh", "-c", "echo 2; echo 3 >&2"))
        line = " ".join(self.command("run", "--bundle", bundle, self.id))
        self.assertEqual(self.output(f"echo 1; {line}; echo 4"), "1\n2\n3\n4\n")

    def test_closed_descriptors(self):
        # What the caller closed is no file of the sandbox's either; nothing else takes its place.
        result = self.output("$TOOL /bin/sh -c 'echo fine' <&- 2>&-")
        self.assertEqual(result, "fine\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
