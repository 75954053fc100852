# Job control without a terminal and on one (through python's pty).
set -m
sleep 100 & first=$!; sleep 200 & second=$!
jobs | sed 's/ *&$//'
kill -STOP %1; sleep 0.2; jobs | sed 's/ *&$//'
bg %1 >/dev/null; kill %1 %2
# By pid: bash may have reported the end of the job already, and then forgets its number, natively too.
wait $first 2>/dev/null; echo "first $?"; wait $second 2>/dev/null; echo "second $?"
(sleep 0.1; exit 9) & wait $!; echo "waited $?"
set +m
python3 - <<'PY'
import os, pty, re, select, signal, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["PS1"] = "$ "
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
def expect(text, limit=20):
    got, end = b"", time.time() + limit
    while text not in got and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                got += os.read(fd, 4096)
            except OSError:
                break
    print("saw", text.decode() if text in got else ("NOT " + text.decode() + " in " + repr(got)))
expect(b"$ ")
os.write(fd, b"cat\n"); time.sleep(0.5)
os.write(fd, b"\x1a"); expect(b"Stopped")
os.write(fd, b"fg\n"); time.sleep(0.5); os.write(fd, b"hello cat\n"); expect(b"hello cat\r\nhello cat")
os.write(fd, b"\x03"); time.sleep(0.3)
os.write(fd, b"echo status $?\n"); expect(b"status 130")
os.write(fd, b"sleep 50 & kill %1; wait; echo do''ne\n"); expect(b"done")
os.write(fd, b"exit 6\n")
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
