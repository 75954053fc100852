"""The parts of the standard library that lean on the kernel. Prints what must be equal everywhere."""
import asyncio
import concurrent.futures
import fcntl
import mmap
import multiprocessing
import os
import queue
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time


def square(n):
    return n * n


def try_subprocess():
    print("subprocess", subprocess.check_output(["echo", "hello"]).decode().strip())
    p = subprocess.run("cat; exit 5", shell=True, input=b"x" * 200_000, capture_output=True)
    print("subprocess", len(p.stdout), p.returncode)
    try:
        subprocess.run(["sleep", "5"], timeout=0.2)
    except subprocess.TimeoutExpired:
        print("subprocess timed out")
    p = subprocess.Popen(["sleep", "50"], start_new_session=True)
    p.send_signal(signal.SIGTERM)
    print("subprocess", p.wait())
    try:
        subprocess.run(["/no/such/file"])
    except FileNotFoundError as e:
        print("subprocess", e.strerror)


def try_threads():
    q, total, lock = queue.Queue(), [0], threading.Lock()

    def work():
        while (item := q.get()) is not None:
            with lock:
                total[0] += item

    threads = [threading.Thread(target=work) for _ in range(16)]
    for t in threads:
        t.start()
    for i in range(2000):
        q.put(i)
    for _ in threads:
        q.put(None)
    for t in threads:
        t.join()
    print("threads", total[0])
    event = threading.Event()
    print("threads", event.wait(0.05), threading.active_count())


def try_multiprocessing():
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            print("pool", method, sum(pool.map(square, range(200))))
    context = multiprocessing.get_context("fork")
    value, lock = context.Value("i", 0), context.Lock()

    def add():
        for _ in range(200):
            with value.get_lock():
                value.value += 1

    processes = [context.Process(target=add) for _ in range(4)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
    print("shared value", value.value, [p.exitcode for p in processes])
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        print("executor", list(executor.map(square, range(5))))


async def asyncio_main():
    p = await asyncio.create_subprocess_exec("sh", "-c", "read a; echo got $a; echo err >&2; exit 4", stdin=-1, stdout=-1, stderr=-1)
    out, err = await p.communicate(b"line\n")
    print("asyncio", out, err, p.returncode)
    results = await asyncio.gather(*(asyncio.sleep(0.01 * (5 - i), i) for i in range(5)))
    print("asyncio", results)
    a, b = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=a)
    b.send(b"through a socket\n")
    print("asyncio", await reader.readline())
    writer.close()
    b.close()
    try:
        await asyncio.wait_for(asyncio.sleep(5), 0.05)
    except asyncio.TimeoutError:
        print("asyncio timed out")


def try_files():
    with tempfile.TemporaryFile() as f:
        f.truncate(8192)
        with mmap.mmap(f.fileno(), 8192) as m:
            m[100:105] = b"hello"
            m.flush()
            f.seek(100)
            print("mmap", f.read(5), m.find(b"hello"))
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    m = mmap.mmap(-1, 4096)
    if os.fork() == 0:
        m[0] = 77
        os._exit(0)
    os.wait()
    print("shared mmap", m[0])
    with tempfile.TemporaryDirectory() as d:
        for i in range(50):
            with open(os.path.join(d, f"{i:02}"), "w") as f:
                f.write("x" * i)
        print("scandir", sum(e.stat().st_size for e in os.scandir(d)), sorted(os.listdir(d))[:3])
        os.symlink("01", os.path.join(d, "link"))
        print("link", os.readlink(os.path.join(d, "link")), os.path.getsize(os.path.join(d, "link")))


def try_sqlite():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "db")
        for mode in ("delete", "wal"):
            db = sqlite3.connect(path)
            print("sqlite", db.execute(f"pragma journal_mode={mode}").fetchone())
            db.execute("create table if not exists t(a integer primary key, b text)")
            db.executemany("insert into t(b) values(?)", [(f"row {i}",) for i in range(2000)])
            db.commit()
            other = sqlite3.connect(path)
            print("sqlite", other.execute("select count(*), max(b) from t").fetchone())
            other.close()
            db.close()


def try_signals():
    got = []
    signal.signal(signal.SIGALRM, lambda s, f: got.append(s))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    while not got:
        time.sleep(0.01)
    r, w = os.pipe()
    signal.set_wakeup_fd(w, warn_on_full_buffer=False) if os.set_blocking(w, False) is None else None
    os.kill(os.getpid(), signal.SIGALRM)
    print("signals", got[0] == signal.SIGALRM, select.select([r], [], [], 1)[0] == [r])
    signal.set_wakeup_fd(-1)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    print("signals", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    poll, ep = select.poll(), select.epoll()
    ep.register(r, select.EPOLLIN)
    poll.register(r, select.POLLIN)
    print("poll", len(poll.poll(0)), len(ep.poll(0)))


if __name__ == "__main__":
    for part in (try_subprocess, try_threads, try_multiprocessing, lambda: asyncio.run(asyncio_main()), try_files, try_sqlite, try_signals):
        part()
        sys.stdout.flush()
