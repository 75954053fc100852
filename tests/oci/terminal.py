"""A terminal with an interactive shell on it, as a user has: the other end of a pseudoterminal, in the test's hands.

What is typed goes through the host's line discipline, so ^C and ^Z are real. The shell is bash with job control; a test
types the same at it for a command of the host and for one in the sandbox.
"""
import errno
import fcntl
import os
import re
import select
import signal
import struct
import termios
import time

LIMIT = 20  # seconds until something that must appear has appeared
INTERRUPT, QUIT, STOP, END_OF_FILE = "\x03", "\x1c", "\x1a", "\x04"
PROMPT = "%%> "


class Terminal:
    """`command` runs as the leader of a session with this terminal as its controlling one."""

    def __init__(self, command, size=(24, 80)):
        self.seen = ""
        master, slave = os.openpty()
        self.master, self.slave = master, slave
        self.resize(*size)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number in range(1, signal.NSIG):
                    if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                        signal.signal(number, signal.SIG_DFL)
                os.setsid()
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
                for number in range(3):
                    os.dup2(slave, number)
                os.closerange(3, 256)
                environment = {"PATH": os.environ["PATH"], "HOME": "/", "TERM": "dumb", "PS1": PROMPT, "PS2": "", "LC_ALL": "C"}
                os.execve(command[0], command, environment)
            finally:
                os._exit(127)

    @classmethod
    def shell(cls, **options):
        terminal = cls(["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], **options)
        terminal.expect(re.escape(PROMPT))
        return terminal

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self):
        """Everything but the speeds."""
        return termios.tcgetattr(self.slave)

    def type(self, text):
        os.write(self.master, text.encode())

    def _read(self, end):
        """False at the terminal's end or when the time is up."""
        if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.master, 4096)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return True

    def expect(self, pattern, limit=LIMIT):
        """Reads until `pattern` has been seen and forgets what was read up to its end; the match."""
        end = time.monotonic() + limit
        while not (found := re.search(pattern, self.seen)):
            if not self._read(end):
                raise AssertionError(f"{pattern!r} does not appear in {self.seen!r}")
        self.seen = self.seen[found.end():]
        return found

    def run(self, line, limit=LIMIT):
        """Types a command at the shell's prompt and answers its output and status. $? keeps its value."""
        self.type(line + "\n")
        # The echo of the line itself comes first.
        self.expect(re.escape(line) + "\n")
        return self.expect("(?s)(.*?)" + re.escape(PROMPT), limit)[1]

    def status(self):
        return int(self.run("echo $?").strip())

    def wait(self, limit=LIMIT):
        """Until the first process has ended; its wait status. It is killed when it does not."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                self.pid = -1
                return status
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.pid = -1
        return status

    def hang_up(self):
        for fd in (self.slave, self.master):
            if fd >= 0:
                os.close(fd)
        self.slave = self.master = -1

    def close(self):
        self.hang_up()
        if self.pid > 0:
            self.wait()
