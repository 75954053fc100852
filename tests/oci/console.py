"""The receiving end of --console-socket: what conmon and the containerd shim do."""
import array
import fcntl
import os
import re
import select
import socket
import struct
import termios
import time

LIMIT = 20


class ConsoleSocket:
    def __init__(self, path):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(LIMIT)

    def receive(self):
        """The master: exactly one descriptor in one message."""
        connection, _ = self.listener.accept()
        with connection:
            size = array.array("i").itemsize
            data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(8 * size), socket.MSG_CMSG_CLOEXEC)
            numbers = array.array("i")
            for level, kind, content in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                numbers.frombytes(content[:len(content) - len(content) % size])
            assert len(numbers) == 1 and data, (data, numbers)
            assert connection.recv(1) == b"", "more than one message"
        return Console(numbers[0])

    def close(self):
        self.listener.close()


class Console:
    def __init__(self, master):
        self.master = master
        self.seen = ""

    def size(self):
        return struct.unpack("HHHH", fcntl.ioctl(self.master, termios.TIOCGWINSZ, bytes(8)))[:2]

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, limit=LIMIT):
        end = time.monotonic() + limit
        while not (found := re.search(pattern, self.seen)):
            if not self._read(end):
                raise AssertionError(f"{pattern!r} does not appear in {self.seen!r}")
        self.seen = self.seen[found.end():]
        return found

    def expect_end(self, limit=LIMIT):
        """Everything up to the hang-up."""
        end = time.monotonic() + limit
        while self._read(end):
            pass
        if time.monotonic() >= end:
            raise AssertionError(f"the terminal stays open after {self.seen!r}")
        return self.seen

    def _read(self, end):
        if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.master, 4096)
        except OSError:  # EIO: nobody has the other end
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def close(self):
        if self.master >= 0:
            os.close(self.master)
        self.master = -1
