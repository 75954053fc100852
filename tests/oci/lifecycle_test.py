#!/usr/bin/env python3
"""A container's life, and its end when one of our own processes is killed at any moment."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
import harness  # noqa: E402

SLEEP = ("/bin/sleep", "300")


class Lifecycle(harness.RunscTest):
    def test_run_gives_output_and_status(self):
        bundle = self.bundle(args=("/bin/sh", "-c", "echo out; echo err >&2; exit 7"))
        result = self.run_tool("run", "--bundle", bundle, self.id)
        self.assertEqual((result.code, result.out, result.err), (7, "out\n", "err\n"))

    def test_create_start_state_kill_delete(self):
        bundle = self.bundle(args=SLEEP)
        created = self.run_tool("create", "--bundle", bundle, self.id)
        self.assertEqual(created.code, 0, created)
        state = json.loads(self.run_tool("state", self.id).out)
        self.assertEqual((state["id"], state["status"]), (self.id, "created"))
        self.assertGreater(state["pid"], 0)
        self.assertEqual(self.run_tool("start", self.id).code, 0)
        self.wait_for_status("running")
        self.assertIn(self.id, self.run_tool("list", "-q").out.split())
        self.assertIn("not stopped", self.run_tool("delete", self.id).err)
        self.assertEqual(self.run_tool("kill", self.id, "KILL").code, 0)
        self.assertEqual(self.wait_for_status("stopped")["pid"], 0)
        self.assertIn("not running", self.run_tool("kill", self.id, "TERM").err)
        self.assertEqual(self.run_tool("delete", self.id).code, 0)
        self.assertEqual(self.run_tool("list", "-q").out, "")

    def test_duplicate_id(self):
        bundle = self.bundle(args=SLEEP)
        self.assertEqual(self.run_tool("create", "--bundle", bundle, self.id).code, 0)
        self.expect_refusal(self.run_tool("create", "--bundle", bundle, self.id), "container with given id already exists")
        self.assertEqual(json.loads(self.run_tool("state", self.id).out)["status"], "created")
        self.assertEqual(self.run_tool("delete", "--force", self.id).code, 0)

    def test_delete_force_of_running(self):
        bundle = self.bundle(args=SLEEP)
        self.assertEqual(self.run_tool("create", "--bundle", bundle, self.id).code, 0)
        self.assertEqual(self.run_tool("start", self.id).code, 0)
        self.assertEqual(self.run_tool("delete", "--force", self.id).code, 0)

    def test_start_twice(self):
        bundle = self.bundle(args=SLEEP)
        self.run_tool("create", "--bundle", bundle, self.id)
        self.run_tool("start", self.id)
        self.expect_refusal(self.run_tool("start", self.id), "already running")
        self.run_tool("delete", "--force", self.id)

    def test_exec(self):
        bundle = self.bundle(args=SLEEP)
        self.run_tool("create", "--bundle", bundle, self.id)
        self.run_tool("start", self.id)
        result = self.run_tool("exec", self.id, "/bin/sh", "-c", "echo inside; exit 5")
        self.assertEqual((result.code, result.out), (5, "inside\n"))
        self.run_tool("delete", "--force", self.id)
        self.expect_refusal(self.run_tool("exec", self.id, "/bin/true"), "does not exist", code=255)

    def test_do_exit_codes_and_signals(self):
        self.assertEqual(self.run_tool("do", "--", "/bin/sh", "-c", "exit 42").code, 42)
        self.assertEqual(self.run_tool("do", "--", "/bin/sh", "-c", "kill -TERM $$").code, -signal.SIGTERM)

    def test_do_reads_stdin(self):
        read, write = os.pipe()
        os.write(write, b"from the caller\n")
        os.close(write)
        result = self.run_tool("do", "--", "/bin/cat", stdin=read)
        os.close(read)
        self.assertEqual(result.out, "from the caller\n")

    def test_do_shares_the_offset_of_a_plain_file(self):
        path = self.directory / "out"
        with open(path, "wb") as out:
            out.write(b"before\n")
            out.flush()
            subprocess.run(self.command("do", "--", "/bin/echo", "inside"), stdout=out, stdin=subprocess.DEVNULL, check=True, timeout=harness.LIMIT)
            out.seek(0, os.SEEK_CUR)
            os.write(out.fileno(), b"after\n")
        self.assertEqual(path.read_text(), "before\ninside\nafter\n")

    def test_do_changes_nothing_on_the_host(self):
        name = f"/var/tmp/moat-do-{os.getpid()}"
        result = self.run_tool("do", "--", "/bin/sh", "-c", f"echo private > {name} && cat {name}")
        self.assertEqual(result.out, "private\n", result)
        self.assertFalse(os.path.exists(name))

    def test_do_volume(self):
        shared = self.directory / "shared"
        shared.mkdir()
        (shared / "in").write_text("given\n")
        result = self.run_tool("do", f"--volume={shared}:/mnt", "--", "/bin/sh", "-c", "cat /mnt/in; echo made >/mnt/out")
        self.assertEqual(result.out, "given\n", result)
        self.assertEqual((shared / "out").read_text(), "made\n")
        result = self.run_tool("do", f"--volume={shared}:/mnt:ro", "--", "/bin/sh", "-c", "echo x >/mnt/no")
        self.assertNotEqual(result.code, 0)
        self.assertFalse((shared / "no").exists())


class KilledProcess(harness.RunscTest):
    """SIGKILL of each process of a running sandbox in turn: the command ends, delete cleans up, nothing is left."""

    def processes_of(self, command):
        """Pids of the sandbox in a stable order: by start, the command itself first."""
        end = time.time() + harness.LIMIT
        while time.time() < end:
            if self.run_tool("exec", self.id, "/bin/true").code == 0:
                break
            time.sleep(0.05)
        else:
            self.fail("the container does not start")
        time.sleep(0.1)
        return sorted(pid for pid, name in harness.descendants().items() if not name.endswith(" Z"))

    def test_each(self):
        bundle = self.bundle(args=SLEEP)
        index = 0
        while True:
            command = self.start_tool("run", "--bundle", bundle, self.id)
            pids = self.processes_of(command)
            if index >= len(pids):
                break
            with self.subTest(process=index, name=harness.descendants().get(pids[index])):
                os.kill(pids[index], signal.SIGKILL)
                # The supervising command may have been the one that died: then the others must end by themselves.
                try:
                    command.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    self.fail("the command goes on without one of its processes")
                deleted = self.run_tool("delete", "--force", self.id)
                self.assertEqual(deleted.code, 0, deleted)
                self.expect_nothing_left()
            index += 1
        self.assertGreater(index, 1, "a sandbox is more than one process")
        self.run_tool("delete", "--force", self.id)

    def test_during_start(self):
        bundle = self.bundle(args=SLEEP)
        for delay in (0, 0.005, 0.01, 0.02, 0.04, 0.08):
            with self.subTest(delay=delay):
                command = self.start_tool("run", "--bundle", bundle, self.id)
                time.sleep(delay)
                command.kill()
                command.wait()
                self.run_tool("delete", "--force", self.id)
                self.expect_nothing_left()


class StoppedProcess(harness.RunscTest):
    """SIGSTOP and SIGCONT of every process of a sandbox, as a debugger or a freezer does it: the guest goes on."""

    def test_all(self):
        out = self.directory / "out"
        script = "i=0; while [ $i -lt 30 ]; do /bin/sleep 0.05; i=$((i+1)); done; echo alive"
        with open(out, "wb") as sink:
            command = subprocess.Popen(self.command("do", "--", "/bin/sh", "-c", script), stdin=subprocess.DEVNULL, stdout=sink,
                                       start_new_session=True)
            self.background.append(command)
            time.sleep(0.3)
            for _ in range(10):
                pids = [pid for pid in harness.descendants() if pid != command.pid]
                for sent in (signal.SIGSTOP, signal.SIGCONT):
                    for pid in pids:
                        try:
                            os.kill(pid, sent)
                        except ProcessLookupError:
                            pass
                    time.sleep(0.03)
            self.assertEqual(command.wait(timeout=harness.LIMIT), 0)
        self.assertEqual(out.read_text(), "alive\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
