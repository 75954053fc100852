"""A terminal with a shell's job control on it, as a user has: the other end of a pseudoterminal, in the test's hands.

What is typed goes through the host's line discipline, so ^C and ^Z are real. The shell is a process of our own that
does what a shell does for its jobs (process groups, the terminal's foreground, waiting) and takes its orders by a
socket: nothing of it appears on the terminal.
"""
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import termios
import time

LIMIT = 20  # seconds until something that must happen has happened
INTERRUPT, QUIT, STOP, END_OF_FILE = "\x03", "\x1c", "\x1a", "\x04"


class Shell:
    """The process behind Terminal: leader of the session, one job at a time."""

    def __init__(self, orders):
        self.orders = orders
        self.group = 0
        self.settings = termios.tcgetattr(0)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)

    def run(self):
        source = self.orders.makefile()
        for line in source:
            name, *arguments = json.loads(line)
            answer = getattr(self, name)(*arguments)
            self.orders.sendall(json.dumps(answer).encode() + b"\n")

    def start(self, command, foreground):
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                if foreground:
                    os.tcsetpgrp(0, os.getpid())
                for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                    signal.signal(number, signal.SIG_DFL)
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        self.group = pid
        return pid

    def foreground(self):
        os.tcsetpgrp(0, self.group)
        os.killpg(self.group, signal.SIGCONT)

    def give_terminal(self):
        """To a job that runs already: no signal tells it."""
        os.tcsetpgrp(0, self.group)

    def background(self):
        os.killpg(self.group, signal.SIGCONT)

    def kill(self, number):
        os.killpg(self.group, number)

    def wait(self):
        """[what, number] of the next change of the job; then the terminal is the shell's again."""
        _, status = os.waitpid(self.group, os.WUNTRACED)
        os.tcsetpgrp(0, os.getpid())
        if os.WIFSTOPPED(status):
            termios.tcsetattr(0, termios.TCSADRAIN, self.settings)
            return ["stopped", os.WSTOPSIG(status)]
        return ["killed", os.WTERMSIG(status)] if os.WIFSIGNALED(status) else ["exited", os.WEXITSTATUS(status)]


class Terminal:
    """With `command` as the leader of the session whose controlling terminal this is, or else with a Shell."""

    def __init__(self, command=None, size=(24, 80)):
        self.seen = ""
        self.master, self.slave = os.openpty()
        self.resize(*size)
        self.orders, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._be_leader(command, theirs)
            finally:
                os._exit(127)
        theirs.close()
        self.answers = self.orders.makefile()

    def _be_leader(self, command, orders):
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        for number in range(3):
            os.dup2(self.slave, number)
        for number in range(3, 256):
            if number != orders.fileno():
                try:
                    os.close(number)
                except OSError:
                    pass
        os.environ.update(HOME="/", TERM="dumb", PS1="inside> ", LC_ALL="C")
        if command:
            os.execvp(command[0], command)
        Shell(orders).run()

    # -- orders for the shell --

    def order(self, name, *arguments):
        self.orders.sendall(json.dumps([name, *arguments]).encode() + b"\n")
        self.orders.settimeout(LIMIT)
        line = self.answers.readline()
        if not line:
            raise AssertionError("the shell of the test is gone")
        return json.loads(line)

    def start(self, command, ready="ready\n", foreground=True):
        """Starts a job and waits until `ready` appears."""
        self.order("start", command, foreground)
        if ready:
            self.expect(ready)

    def run(self, command):
        """(output, how it ended)"""
        self.order("start", command, True)
        end = self.order("wait")
        while self._read(time.monotonic() + 0.05):
            pass
        output, self.seen = self.seen, ""
        return output, end

    # -- the terminal --

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self):
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
                raise AssertionError(f"{pattern!r} does not appear in {self.seen[-2000:]!r}")
        self.seen = self.seen[found.end():]
        return found

    def wait_for_leader(self, limit=LIMIT):
        """Until the session's leader has ended; its wait status. It is killed when it does not."""
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
        self.answers.close()
        self.orders.close()
        if self.pid > 0:
            self.wait_for_leader()
