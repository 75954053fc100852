#!/usr/bin/env python3
"""Bad input: one clear line that says which field or file, the right exit code, and nothing left behind."""
import json
import os
import sys
import unittest
import unittest.mock

sys.dont_write_bytecode = True
import harness  # noqa: E402


def setting(path, value):
    """A change of the configuration: setting("process.args", [])."""

    def change(config):
        at = config
        *parents, last = path.split(".")
        for key in parents:
            at = at.setdefault(key, {})
        at[last] = value

    return change


def removing(path):
    def change(config):
        at = config
        *parents, last = path.split(".")
        for key in parents:
            at = at[key]
        del at[last]

    return change


# What is wrong, and what the message must name.
BAD_CONFIGURATIONS = {
    "version missing": (removing("ociVersion"), ["ociVersion"]),
    "version of another age": (setting("ociVersion", "9.0.0"), ["ociVersion"]),
    "version no string": (setting("ociVersion", 1), ["ociVersion"]),
    "process missing": (removing("process"), ["process"]),
    "process a list": (setting("process", []), ["process"]),
    "args missing": (removing("process.args"), ["process.args"]),
    "args empty": (setting("process.args", []), ["process.args"]),
    "args of numbers": (setting("process.args", ["a", 1]), ["process.args"]),
    "cwd missing": (removing("process.cwd"), ["process.cwd"]),
    "cwd relative": (setting("process.cwd", "tmp"), ["process.cwd"]),
    "env no list": (setting("process.env", "PATH=/bin"), ["process.env"]),
    "uid negative": (setting("process.user.uid", -1), ["process.user.uid"]),
    "uid a word": (setting("process.user.uid", "root"), ["process.user.uid"]),
    "uid too large": (setting("process.user.uid", 1 << 40), ["process.user.uid"]),
    "unknown limit": (setting("process.rlimits", [{"type": "RLIMIT_NONSENSE", "hard": 1, "soft": 1}]), ["RLIMIT_NONSENSE"]),
    "limit twice": (setting("process.rlimits", [{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}] * 2), ["RLIMIT_NOFILE"]),
    "soft above hard": (setting("process.rlimits", [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]), ["rlimits"]),
    "terminal without socket": (setting("process.terminal", True), ["console"]),
    "root missing": (removing("root"), ["root"]),
    "root path missing": (setting("root", {}), ["root.path"]),
    "root path absent": (setting("root.path", "no-such-root"), ["no-such-root"]),
    "root is a file": (setting("root.path", "config.json"), ["config.json"]),
    "mount destination missing": (setting("mounts", [{"type": "tmpfs", "source": "tmpfs"}]), ["mounts", "destination"]),
    "mount type unknown": (setting("mounts", [{"destination": "/x", "type": "nonsense", "source": "x"}]), ["nonsense"]),
    "bind source absent": (setting("mounts", [{"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}]), ["/no/such/source"]),
    "mounts no list": (setting("mounts", {}), ["mounts"]),
    "namespace unknown": (setting("linux.namespaces", [{"type": "nonsense"}]), ["nonsense"]),
    "namespace twice": (setting("linux.namespaces", [{"type": "pid"}, {"type": "pid"}]), ["pid"]),
    "namespace path absent": (setting("linux.namespaces", [{"type": "network", "path": "/no/such/ns"}]), ["/no/such/ns"]),
    "namespace path of another kind": (setting("linux.namespaces", [{"type": "network", "path": "/proc/self/ns/uts"}]), ["namespaces[0]", "network"]),
    "namespace path a plain file": (setting("linux.namespaces", [{"type": "network", "path": "/etc/passwd"}]), ["namespaces[0]", "network"]),
    "policy unknown": (setting("process.scheduler", {"policy": "SCHED_NONSENSE"}), ["SCHED_NONSENSE"]),
    "priority without realtime": (setting("process.scheduler", {"policy": "SCHED_OTHER", "priority": 5}), ["scheduler.priority"]),
    "io class unknown": (setting("process.ioPriority", {"class": "IOPRIO_NONSENSE"}), ["IOPRIO_NONSENSE"]),
    "oom score out of range": (setting("process.oomScoreAdj", 1001), ["oomScoreAdj"]),
    "umask out of range": (setting("process.user.umask", 0o1000), ["umask"]),
    "hostname too long": (setting("hostname", "h" * 65), ["hostname"]),
    "domainname too long": (setting("domainname", "d" * 65), ["domainname"]),
    "mount option unknown": (setting("mounts", [{"destination": "/x", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]}]), ["mounts[0]", "invalid argument"]),
    "mount of mapped ids": (setting("mounts", [{"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind"],
                                                "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}]), ["mounts[0].uidMappings"]),
    "remount of nothing": (setting("mounts", [{"destination": "/etc", "options": ["remount", "ro"]}]), ["mounts[0]", "/etc"]),
    "propagation unknown": (setting("linux.rootfsPropagation", "nonsense"), ["rootfsPropagation"]),
    "device type unknown": (setting("linux.devices", [{"path": "/dev/x", "type": "z", "major": 1, "minor": 1}]), ["devices[0].type"]),
    "device in the way of another": (setting("linux.devices", [{"path": "/bin/busybox", "type": "c", "major": 1, "minor": 5}]), ["devices[0]", "/bin/busybox"]),
    "empty annotation": (setting("annotations", {"": "x"}), ["annotations"]),
    "hook absolute": (setting("hooks", {"prestart": [{"path": "relative"}]}), ["hooks"]),
}


class BadConfiguration(harness.RunscTest):
    pass


def add_configuration_test(name, change, words):
    def test(self):
        bundle = self.bundle(change)
        result = self.run_tool("run", "--bundle", bundle, self.id)
        self.expect_refusal(result, *words)
        self.assertEqual(self.run_tool("list", "-q").out, "")

    setattr(BadConfiguration, "test_" + name.replace(" ", "_"), test)


for case_name, (case_change, case_words) in BAD_CONFIGURATIONS.items():
    add_configuration_test(case_name, case_change, case_words)


class BadDocument(harness.RunscTest):
    def run_document(self, text):
        bundle = self.bundle()
        (bundle / "config.json").write_text(text)
        return self.run_tool("run", "--bundle", bundle, self.id)

    def test_empty(self):
        self.expect_refusal(self.run_document(""), "config.json")

    def test_not_json(self):
        self.expect_refusal(self.run_document("hello"), "config.json")

    def test_truncated(self):
        self.expect_refusal(self.run_document('{"ociVersion": "1.2.0", "process": {'), "config.json")

    def test_list_at_the_top(self):
        self.expect_refusal(self.run_document("[]"), "object")

    def test_deep_nesting(self):
        self.expect_refusal(self.run_document("[" * 200_000), "config.json")

    def test_missing(self):
        bundle = self.bundle()
        os.unlink(bundle / "config.json")
        self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), "config.json", "no such file")

    def test_a_directory(self):
        bundle = self.bundle()
        os.unlink(bundle / "config.json")
        os.mkdir(bundle / "config.json")
        self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), "config.json")

    def test_bundle_missing(self):
        self.expect_refusal(self.run_tool("run", "--bundle", self.directory / "none", self.id), "none", "no such file")


class BadCommandLine(harness.RunscTest):
    def test_unknown_command(self):
        self.expect_refusal(self.run_tool("frobnicate"), "frobnicate")

    def test_no_command(self):
        self.expect_refusal(self.run_tool(), "command")

    def test_unknown_flag(self):
        self.expect_refusal(self.run_tool("list", "--nonsense"), "--nonsense")

    def test_unknown_platform(self):
        with unittest.mock.patch.object(harness, "PLATFORM", "quantum"):
            self.expect_refusal(self.run_tool("do", "/bin/true"), "quantum")

    def test_bad_ids(self):
        bundle = self.bundle()
        for bad in ("", ".", "..", "a/b", "a b", "../x", "ä"):
            self.expect_refusal(self.run_tool("run", "--bundle", bundle, bad), "invalid container id")

    def test_unknown_id(self):
        for command in ("state", "start", "delete", "ps", "wait"):
            self.expect_refusal(self.run_tool(command, "nobody"), "nobody", "does not exist")
        self.expect_refusal(self.run_tool("kill", "nobody", "TERM"), "does not exist")
        self.expect_refusal(self.run_tool("exec", "nobody", "/bin/true"), "does not exist", code=255)

    def test_force_delete_of_unknown_id(self):
        self.assertEqual(self.run_tool("delete", "--force", "nobody").code, 0)

    def test_error_goes_to_the_json_log(self):
        log = self.directory / "log.json"
        self.run_tool("--log", log, "--log-format", "json", "state", "nobody")
        entry = json.loads(log.read_text())
        self.assertEqual(entry["level"], "error")
        self.assertIn("does not exist", entry["msg"])


class BadExecutable(harness.RunscTest):
    def file(self, name, content, mode=0o755):
        path = self.bundle() / "rootfs" / name
        path.write_bytes(content)
        path.chmod(mode)
        return "/" + name

    def run_program(self, path):
        bundle = self.bundle(args=(path,))
        return self.run_tool("run", "--bundle", bundle, self.id)

    def test_absent(self):
        result = self.run_program("/bin/none")
        self.expect_refusal(result, "no such file or directory", code=127)

    def test_absent_in_path(self):
        self.expect_refusal(self.run_program("none"), "executable file not found", code=127)

    def test_not_executable(self):
        self.expect_refusal(self.run_program(self.file("plain", b"#!/bin/sh\n", 0o644)), "permission denied", code=126)

    def test_directory(self):
        self.assertIn(self.run_program("/tmp").code, (126,))

    def test_text_file(self):
        self.expect_refusal(self.run_program(self.file("text", b"just text\n")), "exec format error", code=126)

    def test_truncated_elf(self):
        with open(harness.BUSYBOX, "rb") as source:
            head = source.read(50)
        self.expect_refusal(self.run_program(self.file("cut", head)), "exec format error", code=126)

    def test_elf_of_another_machine(self):
        with open(harness.BUSYBOX, "rb") as source:
            elf = bytearray(source.read(8192))
        elf[18] = 183  # AArch64
        self.expect_refusal(self.run_program(self.file("arm", bytes(elf))), "exec format error", code=126)

    def test_missing_interpreter(self):
        result = self.run_program(self.file("script", b"#!/no/interpreter\n"))
        self.expect_refusal(result, "no such file or directory", code=127)

    def test_do_absent(self):
        self.expect_refusal(self.run_tool("do", "--", "/no/such/program"), "/no/such/program", code=127)

    def test_do_not_executable(self):
        self.expect_refusal(self.run_tool("do", "--", "/etc/passwd"), "/etc/passwd", code=126)


if __name__ == "__main__":
    unittest.main(verbosity=2)
