#!/usr/bin/env python3
"""The caller's own terminal: what a user of a shell sees of `runsc do` and `runsc run` is what a native command shows.

Each case of JobControl is typed twice, once for the command on the host and once for it in the sandbox, and both must
go the same way.
"""
import os
import re
import signal
import subprocess
import sys
import termios
import time
import unittest

sys.dont_write_bytecode = True
import harness  # noqa: E402
from terminal import END_OF_FILE, INTERRUPT, PROMPT, QUIT, STOP, Terminal  # noqa: E402

# Reads one byte in raw mode.
READ_RAW = ("import termios, tty, sys; old = termios.tcgetattr(0); tty.setraw(0); sys.stdout.write(\"raw\\n\");"
            "sys.stdout.flush(); c = sys.stdin.buffer.raw.read(1); termios.tcsetattr(0, termios.TCSAFLUSH, old); print(c)")
# Prints the window's size at each SIGWINCH.
WATCH_SIZE = ("import signal, os; signal.signal(signal.SIGWINCH, lambda *a: os.write(1, b\"%d %d\\n\" % tuple(reversed(os.get_terminal_size(1)))));"
              "os.write(1, b\"ready\\n\"); [signal.pause() for _ in iter(int, 1)]")
STOPPED = r"\[1\]\+ +Stopped"


class TerminalTest(harness.RunscTest):
    def setUp(self):
        super().setUp()
        self.terminals = []

    def tearDown(self):
        for terminal in self.terminals:
            terminal.close()
        super().tearDown()

    def shell(self, **options):
        terminal = Terminal.shell(**options)
        self.terminals.append(terminal)
        return terminal

    def sandboxed(self):
        return " ".join(self.command("do", "--")) + " "


def on_both(test):
    """Runs test(self, shell, prefix) for a command on the host and for one in the sandbox, by what is put before it."""

    def run(self):
        for name, prefix in (("native", ""), ("sandbox", self.sandboxed())):
            with self.subTest(where=name):
                test(self, self.shell(), prefix)

    return run


class JobControl(TerminalTest):
    def start(self, shell, line, ready="ready\n"):
        shell.type(line + "\n")
        shell.expect(re.escape(line) + "\n")
        shell.expect(ready)
        # A shell that waits in vfork(2) for a child that was stopped before its execve cannot stop itself.
        time.sleep(0.2)

    @on_both
    def test_interrupt(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; exec cat'")
        shell.type(INTERRUPT)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 128 + signal.SIGINT)

    @on_both
    def test_quit(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; exec cat'")
        shell.type(QUIT)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 128 + signal.SIGQUIT)

    @on_both
    def test_interrupt_is_caught(self, shell, prefix):
        self.start(shell, prefix + """bash -c 'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 0.1; done'""")
        shell.type(INTERRUPT)
        shell.expect("caught\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 3)

    @on_both
    def test_end_of_file(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; exec cat'")
        shell.type("hello\n" + END_OF_FILE)
        shell.expect("hello\nhello\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 0)

    @on_both
    def test_stop_and_foreground(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; exec cat'")
        for _ in range(3):
            shell.type(STOP)
            shell.expect(STOPPED)
            shell.expect(re.escape(PROMPT))
            self.assertEqual(shell.status(), 128 + signal.SIGTSTP)
            shell.type("fg\n")
            shell.expect("exec cat'\n")
            shell.type("hello\n")
            shell.expect("hello\nhello\n")
        shell.type(END_OF_FILE)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 0)

    @on_both
    def test_all_of_a_pipeline_stops_and_goes_on(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; cat | cat; echo end'")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("fg\n")
        shell.expect("echo end'\n")
        shell.type("hello\n")
        shell.expect("hello\nhello\n")
        shell.type(END_OF_FILE)
        shell.expect("end\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_stop_and_background(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; sleep 1; echo done'")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        self.assertIn("Stopped", shell.run("jobs"))
        shell.run("bg")
        self.assertIn("done", shell.seen + shell.run("wait"))

    @on_both
    def test_stop_handler_runs(self, shell, prefix):
        program = ("import signal, os; signal.signal(signal.SIGTSTP, lambda *a: os.write(1, b\"caught\\n\"));"
                   "os.write(1, b\"ready\\n\"); signal.pause()")
        self.start(shell, prefix + f"python3 -c '{program}'")
        shell.type(STOP)
        shell.expect("caught\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_continue_handler_runs(self, shell, prefix):
        self.start(shell, prefix + """bash -c 'trap "echo going on" CONT; echo ready; while :; do sleep 0.1; done'""")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("fg\n")
        shell.expect("going on\n")
        shell.type(INTERRUPT)
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_a_command_that_stops_itself(self, shell, prefix):
        for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            self.start(shell, prefix + f"sh -c 'echo ready; kill -{number.name[3:]} $$; echo on'")
            shell.expect(STOPPED)
            shell.expect(re.escape(PROMPT))
            self.assertEqual(shell.status(), 128 + number)
            shell.type("fg\n")
            shell.expect("on\n")
            shell.expect(re.escape(PROMPT))
            self.assertEqual(shell.status(), 0)

    @on_both
    def test_a_background_reader_stops(self, shell, prefix):
        shell.run(prefix + "sh -c 'exec cat' &")
        shell.type("echo mine\n")
        shell.expect("\nmine\n")
        # The shell tells of a stopped job before a prompt.
        end = time.monotonic() + 10
        while "Stopped" not in shell.run("jobs -l") and time.monotonic() < end:
            time.sleep(0.1)
        self.assertRegex(shell.run("jobs -l"), r"Stopped \(tty input\)")
        shell.type("fg\n")
        shell.expect("exec cat'\n")
        shell.type("hello\n" + END_OF_FILE)
        shell.expect("hello\nhello\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_a_running_background_job_may_read_in_the_foreground(self, shell, prefix):
        shell.run(prefix + "sh -c 'sleep 0.5; exec cat' &")
        shell.type("fg\n")
        shell.expect("exec cat'\n")
        time.sleep(0.7)
        shell.type("hello\n" + END_OF_FILE)
        shell.expect("hello\nhello\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_a_background_job_may_not_change_the_terminal(self, shell, prefix):
        before = shell.settings()
        shell.run(prefix + "sh -c 'stty -icanon; echo changed' &")
        end = time.monotonic() + 10
        while "Stopped" not in shell.run("jobs -l") and time.monotonic() < end:
            time.sleep(0.1)
        self.assertRegex(shell.run("jobs -l"), r"Stopped \(tty output\)")
        self.assertEqual(shell.settings(), before)
        shell.run("kill -KILL %1; wait")

    @on_both
    def test_kill_of_a_stopped_job(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready; exec cat'")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("kill -KILL %1\n")
        end = time.monotonic() + 10
        while "Killed" not in (output := shell.run("jobs")) and time.monotonic() < end:
            time.sleep(0.1)
        self.assertIn("Killed", output)

    @on_both
    def test_window_size(self, shell, prefix):
        shell.resize(31, 97)
        self.assertEqual(shell.run(prefix + "stty size"), "31 97\n")

    @on_both
    def test_window_change(self, shell, prefix):
        self.start(shell, prefix + f"python3 -c '{WATCH_SIZE}'")
        shell.resize(33, 99)
        shell.expect("33 99\n")
        shell.resize(34, 100)
        shell.expect("34 100\n")
        shell.type(INTERRUPT)
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_window_size_set_inside(self, shell, prefix):
        self.start(shell, prefix + f"sh -c 'python3 -c \"$1\" & p=$!; sleep 0.5; stty rows 40; sleep 0.3; kill $p' sh '{WATCH_SIZE}'")
        # Once, although the caller's terminal and the one inside are the same.
        self.assertEqual(shell.expect("(?s)(.*)" + re.escape(PROMPT))[1].count("40 80\n"), 1)
        self.assertEqual(shell.run("stty size"), "40 80\n")

    @on_both
    def test_settings_of_a_command_stay(self, shell, prefix):
        shell.run(prefix + "stty -iexten")
        # bash's own copy of the settings is the one after a command that ended well.
        self.assertIn("-iexten", shell.run("stty -a"))

    @on_both
    def test_settings_that_a_command_restores(self, shell, prefix):
        before = shell.settings()
        self.start(shell, prefix + f"python3 -c '{READ_RAW}'", "raw\n")
        shell.type(INTERRUPT)  # a byte like others now
        shell.expect(r"b'\\x03'\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.settings(), before)

    @on_both
    def test_dev_tty(self, shell, prefix):
        self.assertEqual(shell.run(prefix + "sh -c 'echo through >/dev/tty' >/dev/null"), "through\n")
        self.start(shell, prefix + "sh -c 'echo ready; read line </dev/tty; echo got $line' </dev/null")
        shell.type("words\n")
        shell.expect("got words\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_only_one_descriptor_is_the_terminal(self, shell, prefix):
        self.start(shell, prefix + "sh -c 'echo ready >&2; exec cat' >/dev/null </dev/zero")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("fg\n")
        shell.expect("< /dev/zero\n")
        time.sleep(0.2)  # bash has yet to give it the terminal
        shell.type(INTERRUPT)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 128 + signal.SIGINT)

    @on_both
    def test_part_of_a_pipeline(self, shell, prefix):
        self.start(shell, f"{prefix}sh -c 'echo ready; exec cat' | cat | {prefix}cat")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("fg\n")
        shell.expect("cat\n")
        shell.type("hello\n" + END_OF_FILE)
        shell.expect("hello\nhello\n")
        shell.expect(re.escape(PROMPT))

    @on_both
    def test_the_terminal_hangs_up(self, shell, prefix):
        marker = self.directory / f"hung-up-{bool(prefix)}"
        prefix = prefix.replace(" do ", f" do --volume={self.directory}:{self.directory} ")
        self.start(shell, prefix + f"""bash -c 'trap "echo yes >{marker}; exit" HUP; echo ready; while :; do sleep 0.1; done'""")
        shell.close()
        end = time.monotonic() + 10
        while not marker.exists() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertTrue(marker.exists())


class ShellInside(TerminalTest):
    """An interactive shell in the sandbox has job control of its own; the outer shell sees none of it."""

    def enter(self, shell, prefix):
        shell.type(prefix + "env PS1='inside> ' bash --norc --noprofile --noediting -i\n")
        shell.expect("-i\n")
        shell.expect("inside> ")

    def leave(self, shell, status=0):
        shell.type(f"exit {status}\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), status)

    @on_both
    def test_jobs(self, shell, prefix):
        self.enter(shell, prefix)
        shell.type("cat\n")
        shell.expect("cat\n")
        shell.type("a\n")
        shell.expect("a\na\n")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect("inside> ")
        shell.type("echo $?\n")
        shell.expect("148\ninside> ")
        shell.type("sleep 100 &\n")
        shell.expect(r"\[2\] \d+\ninside> ")
        shell.type("fg %1\n")
        shell.expect("cat\n")
        shell.type("b\n")
        shell.expect("b\nb\n")
        shell.type(INTERRUPT)
        shell.expect("inside> ")
        shell.type("echo $?\n")
        shell.expect("130\n")
        shell.expect("inside> ")
        shell.type("kill %2; wait %2; echo $?\n")
        shell.expect("143\n")
        shell.expect("inside> ")
        self.leave(shell, 9)

    @on_both
    def test_interrupt_at_the_prompt(self, shell, prefix):
        self.enter(shell, prefix)
        shell.type("half a line" + INTERRUPT)
        shell.expect("inside> ")
        shell.type("echo $?\n")
        shell.expect("130\n")
        self.leave(shell)

    @on_both
    def test_suspend(self, shell, prefix):
        self.enter(shell, prefix)
        # Not "suspend": it means its group by -1 when the shell is pid 1, which is everybody else.
        shell.type("kill -STOP $$\n")
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        shell.type("fg\n")
        shell.expect("-i\n")
        shell.type("echo b''ack\n")
        shell.expect("back\n")
        shell.expect("inside> ")
        self.leave(shell)

    @on_both
    def test_a_background_reader(self, shell, prefix):
        self.enter(shell, prefix)
        shell.type("cat &\n")
        shell.expect(r"\[1\] \d+\n")
        shell.type("sleep 0.3; jobs\n")
        shell.expect(r"Stopped +cat\n")
        shell.type("kill %1; wait %1; echo gone\n")
        shell.expect("\ngone\n")
        shell.type("exit 0; exit 0\n")
        shell.expect(re.escape(PROMPT))


class WithoutShell(TerminalTest):
    """runsc is the first process of a session, as under script(1) or a terminal emulator's -e: nobody can continue it."""

    def start_alone(self, command):
        terminal = Terminal(command)
        self.terminals.append(terminal)
        terminal.expect("ready\n")
        return terminal

    @on_both
    def test_stop_is_without_effect(self, _, prefix):
        terminal = self.start_alone([*prefix.split(), "/bin/sh", "-c", "echo ready; exec cat"])
        terminal.type(STOP + "hello\n")
        terminal.expect("hello\nhello\n")
        terminal.type(INTERRUPT)
        self.assertEqual(os.WTERMSIG(terminal.wait()), signal.SIGINT)

    @on_both
    def test_hang_up(self, _, prefix):
        terminal = self.start_alone([*prefix.split(), "/bin/sh", "-c", "echo ready; exec sleep 100"])
        terminal.hang_up()
        self.assertEqual(os.WTERMSIG(terminal.wait()), signal.SIGHUP)


class WithoutTerminal(TerminalTest):
    """A parent that waits for stops, without any terminal."""

    def start_child(self, prefix, script):
        process = subprocess.Popen([*prefix.split(), "/bin/sh", "-c", script], stdin=subprocess.DEVNULL,
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
            if not (bundle / "rootfs/bin" / applet).exists():
                os.symlink("busybox", bundle / "rootfs/bin" / applet)
        return " ".join(self.command("run", "--bundle", bundle, self.id))

    def test_shell_with_jobs(self):
        shell = self.shell()
        shell.type(self.container("/bin/sh", "-i") + "\n")
        shell.expect("inside> ")
        # busybox edits lines itself: what is typed while it changes the terminal is lost.
        shell.type("echo ready; cat\n")
        shell.expect("\nready\n")
        shell.type("hello\n")
        shell.expect("hello\nhello\n")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect("inside> ")
        shell.type("fg\n")
        shell.expect("cat\n")
        shell.type("again\n")
        shell.expect("again\nagain\n")
        shell.type(INTERRUPT)
        shell.expect("inside> ")
        shell.type("echo $?\n")
        shell.expect("130\n")
        shell.expect("inside> ")
        shell.type("exit 5\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 5)

    def test_settings_are_restored(self):
        shell = self.shell()
        before = shell.settings()
        shell.run(self.container("/bin/stty", "raw", "-echo"))
        self.assertEqual(shell.settings(), before)

    def test_settings_are_restored_after_a_kill(self):
        shell = self.shell()
        before = shell.settings()
        shell.type(self.container("/bin/sh", "-c", "stty raw -echo; echo ready; exec sleep 100") + "\n")
        shell.expect("ready")
        self.assertNotEqual(shell.settings(), before)
        self.assertEqual(self.run_tool("kill", self.id, "KILL").code, 0)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 128 + signal.SIGKILL)
        self.assertEqual(shell.settings(), before)

    def test_starts_in_the_foreground_only(self):
        # As any program that sets up a terminal: in the background it stops before it makes anything.
        shell = self.shell()
        shell.run(self.container("/bin/sh", "-c", "read line; echo got $line; exit 3") + " &")
        end = time.monotonic() + 10
        while "Stopped" not in shell.run("jobs") and time.monotonic() < end:
            time.sleep(0.1)
        self.assertIn("Stopped", shell.run("jobs -l"))
        self.assertEqual(self.run_tool("list", "-q").out, "")
        shell.type("fg\n")
        shell.expect("\n")
        shell.type("words\n")
        shell.expect("got words\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 3)

    def test_exec_with_the_callers_terminal(self):
        bundle = self.bundle(args=("/bin/sleep", "100"))
        for args in (("create", "--bundle", bundle, self.id), ("start", self.id)):
            self.assertEqual(self.run_tool(*args).code, 0)
        shell = self.shell()
        before = shell.settings()
        shell.type(" ".join(self.command("exec", "-t", self.id, "/bin/busybox", "sh", "-i")) + "\n")
        shell.expect("# ")
        shell.type("echo a''b; cat\n")
        shell.expect("ab\n")
        shell.type("hello\n")
        shell.expect("hello\nhello\n")
        shell.type(INTERRUPT)
        shell.expect("# ")
        shell.type("busybox stty raw -echo; exit 6\n")
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 6)
        self.assertEqual(shell.settings(), before)
        self.run_tool("delete", "--force", self.id)

    def test_exec_stops_with_its_process(self):
        bundle = self.bundle(args=("/bin/sleep", "100"))
        for args in (("create", "--bundle", bundle, self.id), ("start", self.id)):
            self.assertEqual(self.run_tool(*args).code, 0)
        shell = self.shell()
        shell.type(" ".join(self.command("exec", self.id, "/bin/cat")) + "\n")
        shell.expect("cat\n")
        shell.type("hello\n")
        shell.expect("hello\nhello\n")
        shell.type(STOP)
        shell.expect(STOPPED)
        shell.expect(re.escape(PROMPT))
        # The container goes on.
        self.assertEqual(self.run_tool("exec", self.id, "/bin/true").code, 0)
        shell.type("fg\n")
        shell.expect("cat\n")
        shell.type("again\n")
        shell.expect("again\nagain\n")
        shell.type(INTERRUPT)
        shell.expect(re.escape(PROMPT))
        self.assertEqual(shell.status(), 130)
        self.run_tool("delete", "--force", self.id)

    def test_stdin_must_be_a_terminal(self):
        line = self.container("/bin/true").split()
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            error = process.stderr.read().decode()
        self.assertEqual(process.returncode, 1)
        self.assertIn("process.terminal", error)


class PlainFile(TerminalTest):
    """A stdout that is a plain file is one open file description, the caller's."""

    def output(self, script):
        path = self.directory / "out"
        with open(path, "w") as out:
            subprocess.run(["/bin/bash", "-c", script], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                           timeout=harness.LIMIT, check=True, env=dict(os.environ, TOOL=self.sandboxed()))
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
