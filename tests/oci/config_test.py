#!/usr/bin/env python3
"""What the fields of config.json do to a container, and what is only warned about. Source: runtime-spec 1.2."""
import json
import os
import re
import socket
import sys
import unittest

sys.dont_write_bytecode = True
from bad_input_test import setting  # noqa: E402
from container_test import ContainerTest  # noqa: E402


class ConfigTest(ContainerTest):
    def run_script(self, script, *changes):
        """The output of a container's shell. Warnings are in self.warnings."""
        log = self.directory / "log.txt"
        log.unlink(missing_ok=True)
        bundle = self.bundle(*changes, args=("/bin/sh", "-c", script))
        out = self.succeed("--debug", "--log", log, "run", "--bundle", bundle, self.id).out
        self.warnings = log.read_text() if log.exists() else ""
        return out


class ProcessFields(ConfigTest):
    def test_unknown_capability_is_a_warning(self):
        out = self.run_script("grep -E 'CapBnd|CapPrm|CapEff' /proc/self/status",
                              setting("process.capabilities", {k: ["CAP_CHOWN", "CAP_NONSENSE"] for k in ("bounding", "permitted", "effective")}))
        self.assertEqual(re.findall(r"(\w+)$", out, re.M), ["0000000000000001"] * 3)
        self.assertIn("unknown capability CAP_NONSENSE", self.warnings)
        self.assertIn("process.capabilities.effective[1]", self.warnings)

    def test_capability_outside_of_its_limit_is_a_warning(self):
        self.run_script(":", setting("process.capabilities", {"effective": ["CAP_KILL"], "permitted": ["CAP_CHOWN"]}))
        self.assertIn("CAP_KILL is not granted", self.warnings)

    def test_without_capabilities(self):
        self.assertIn("CapBnd:\t0000000000000000", self.run_script("cat /proc/self/status"))

    def test_ambient_capabilities_of_a_user(self):
        sets = {k: ["CAP_NET_BIND_SERVICE"] for k in ("bounding", "permitted", "effective", "inheritable", "ambient")}
        out = self.run_script("grep -E 'CapAmb|CapEff' /proc/self/status", setting("process.capabilities", sets),
                              setting("process.user", {"uid": 1000, "gid": 1000}))
        self.assertEqual(re.findall(r"(\w+)$", out, re.M), ["0000000000000400"] * 2)

    def test_no_new_privileges(self):
        self.assertIn("NoNewPrivs:\t1", self.run_script("cat /proc/self/status", setting("process.noNewPrivileges", True)))

    def test_user(self):
        out = self.run_script("id -u; id -g; id -G; umask",
                              setting("process.user", {"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27}))
        self.assertEqual(out.split(), ["7", "8", "8", "9", "10", "0027"])

    def test_limits(self):
        out = self.run_script("ulimit -n; ulimit -H -n; ulimit -c",
                              setting("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
        self.assertEqual(out.split(), ["100", "200", "0"])

    def test_more_files_than_descriptors(self):
        # The gofer has a descriptor for each file that the sentry remembers: where the limit cannot be raised, it forgets.
        root = self.bundle() / "rootfs/many"
        for i in range(3000):
            path = root / str(i % 30) / str(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        limited = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nofile=2000:2000"]
        command = self.command
        self.command = lambda *args: limited + command(*args)
        self.assertEqual(self.run_script("for i in 1 2 3; do cat /many/*/* | busybox wc -c; done").split(), ["3000"] * 3)

    def test_oom_score(self):
        self.assertEqual(self.run_script("cat /proc/self/oom_score_adj", setting("process.oomScoreAdj", 321)), "321\n")

    def test_oom_score_of_exec(self):
        self.start(setting("process.oomScoreAdj", 321))
        self.assertEqual(self.succeed("exec", self.id, "/bin/cat", "/proc/self/oom_score_adj").out, "321\n")

    def test_scheduler_and_io_priority(self):
        # Fields 19 (nice), 40 (rt_priority) and 41 (policy) of stat.
        show = "set -- $(cat /proc/self/stat); shift 18; echo $1; shift 21; echo $1 $2; ionice"
        os.symlink("busybox", self.bundle() / "rootfs/bin/ionice")
        out = self.run_script(show, setting("process.scheduler", {"policy": "SCHED_BATCH", "nice": 5}),
                              setting("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 6}))
        self.assertEqual(out, "5\n0 3\nbest-effort: prio 6\n")
        out = self.run_script(show, setting("process.scheduler", {"policy": "SCHED_FIFO", "priority": 50}))
        self.assertEqual(out.splitlines()[1], "50 1")

    def test_environment_is_only_what_is_given(self):
        out = self.run_script("cat /proc/self/environ", setting("process.env", ["PATH=/bin", "EMPTY=", "odd"]))
        self.assertEqual(sorted(x for x in out.split("\0") if not x.startswith(("PWD=", "SHLVL="))), ["", "EMPTY=", "PATH=/bin"])

    def test_standard_streams_belong_to_the_user(self):
        out = self.run_script("echo one >/dev/stdout; echo two >/proc/self/fd/1", setting("process.user", {"uid": 1000, "gid": 1000}))
        self.assertEqual(out, "two\n")  # into a file, which every opening made empty

    def test_only_three_descriptors_are_open(self):
        out = self.run_script("ls /proc/self/fd")
        self.assertEqual(out.split(), ["0", "1", "2", "3"])


class Names(ConfigTest):
    def test_given(self):
        out = self.run_script("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname", setting("hostname", "box"), setting("domainname", "example"))
        self.assertEqual(out, "box\nexample\n")

    def test_otherwise_the_hosts(self):
        self.assertEqual(self.run_script("cat /proc/sys/kernel/hostname"), socket.gethostname() + "\n")


class Mounts(ConfigTest):
    def mounted(self, script, *mounts, root=()):
        def add(config):
            config["mounts"] += list(mounts)

        return self.run_script(script, add, *root)

    def flags(self, place, *options, kind="tmpfs", source="x"):
        out = self.mounted("cat /proc/self/mountinfo", {"destination": place, "type": kind, "source": source, "options": list(options)})
        found = re.search(rf"^\d+ \d+ \S+ \S+ {place} (\S+)(.*) - \S+ \S+ (\S+)$", out, re.M)
        self.assertTrue(found, out)
        return set(found[1].split(",")), found[2].strip(), found[3]

    def test_flags(self):
        flags, _, _ = self.flags("/tmp", "ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow")
        self.assertEqual(flags, {"ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"})

    def test_later_options_win(self):
        flags, _, _ = self.flags("/tmp", "ro", "nosuid", "nosymfollow", "rw", "suid", "symfollow", "defaults")
        self.assertEqual(flags, {"rw", "relatime"})

    def test_options_without_effect(self):
        self.flags("/tmp", "silent", "loud", "iversion", "noiversion", "lazytime", "nolazytime", "async", "atime", "diratime", "nomand")
        self.assertNotIn("mounts[2]", self.warnings)
        self.flags("/tmp", "tmpcopyup")
        self.assertIn("mounts[2].options: tmpcopyup has no effect", self.warnings)

    def test_propagation(self):
        self.assertIn("shared:", self.flags("/tmp", "shared")[1])
        self.assertEqual(self.flags("/tmp", "private")[1], "")
        self.assertIn("unbindable", self.flags("/tmp", "unbindable")[1])

    def test_file_systems_own_options(self):
        out = self.mounted("stat -c %a /tmp; stat -f -c '%b %S' /tmp", {"destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["mode=700", "size=64k"]})
        mode, blocks, size = out.split()
        self.assertEqual((mode, int(blocks) * int(size)), ("700", 65536))

    def test_listed_order(self):
        out = self.mounted("ls /tmp /tmp/b", {"destination": "/tmp", "type": "tmpfs", "source": "x"},
                           {"destination": "/tmp/b/c", "type": "tmpfs", "source": "x"})
        self.assertEqual(out.split(), ["/tmp:", "b", "/tmp/b:", "c"])

    def test_relative_destination(self):
        out = self.mounted("touch /tmp/x && echo fine", {"destination": "tmp", "type": "tmpfs", "source": "x"})
        self.assertEqual(out, "fine\n")
        self.assertIn("mounts[2].destination", self.warnings)

    def test_bind(self):
        shared = self.directory / "shared"
        shared.mkdir()
        (shared / "file").write_text("text\n")
        out = self.mounted("cat /mnt/file; echo new >/mnt/made", {"destination": "/mnt", "source": str(shared), "options": ["rbind", "odd=1"]})
        self.assertEqual(out, "text\n")
        self.assertEqual((shared / "made").read_text(), "new\n")
        self.assertIn("odd=1 has no effect on a bind mount", self.warnings)
        out = self.mounted("(echo new >/mnt/other) 2>&1; true", {"destination": "/mnt", "type": "none", "source": str(shared), "options": ["bind", "ro"]})
        self.assertIn("Read-only file system", out)

    def test_bind_relative_to_the_bundle(self):
        (self.bundle() / "here").write_text("text\n")
        self.assertEqual(self.mounted("cat /etc/there", {"destination": "/etc/there", "type": "bind", "source": "here", "options": ["bind"]}), "text\n")

    def test_remount(self):
        out = self.mounted("touch /tmp/x 2>&1; true", {"destination": "/tmp", "type": "tmpfs", "source": "x"}, {"destination": "/tmp", "options": ["remount", "ro"]})
        self.assertIn("Read-only file system", out)

    def test_links_of_the_root_lead_nowhere_else(self):
        root = self.bundle() / "rootfs"
        outside = self.directory / "outside"
        outside.mkdir()
        os.symlink(outside, root / "link")
        out = self.mounted("touch /link/made/file; ls /link/made", {"destination": "/link/made", "type": "tmpfs", "source": "x"})
        self.assertEqual(out, "file\n")
        self.assertEqual(list(outside.iterdir()), [])
        self.assertTrue((root / str(outside)[1:] / "made").is_dir())  # what the link means in the container

    def test_a_link_to_nothing_is_followed(self):
        os.symlink("../run", (self.bundle() / "rootfs/etc/run"))
        os.symlink("loop", (self.bundle() / "rootfs/etc/loop"))
        (self.bundle() / "text").write_text("text\n")
        out = self.mounted("cat /run/secrets/file /etc/run/secrets/file",
                           {"destination": "/etc/run/secrets/file", "type": "bind", "source": "text", "options": ["bind", "ro"]})
        self.assertEqual(out, "text\ntext\n")
        bundle = self.bundle(setting("mounts", [{"destination": "/etc/loop/x", "type": "tmpfs", "source": "x"}]), args=("/bin/true",))
        self.expect_refusal(self.run_tool("run", "--bundle", bundle, self.id), "mounts[0]", "symbolic links")


class Root(ConfigTest):
    def test_read_only(self):
        out = self.run_script("touch /x 2>&1; touch /dev/x && echo fine", setting("root.readonly", True))
        self.assertIn("Read-only file system", out)
        self.assertIn("fine", out)

    def test_propagation(self):
        out = self.run_script("cat /proc/self/mountinfo", setting("linux.rootfsPropagation", "shared"))
        self.assertRegex(out, r"(?m)^\d+ \d+ \S+ / / \S+ shared:\d+ - ")

    def test_absolute_path(self):
        path = str(self.bundle() / "rootfs")
        self.assertEqual(self.run_script("echo fine", setting("root.path", path)), "fine\n")


class Namespaces(ConfigTest):
    def test_missing_ones_are_warned_about(self):
        self.run_script("true", setting("linux.namespaces", [{"type": "mount"}]))
        self.assertIn("none of type pid, network, ipc, uts", self.warnings)

    def test_one_by_path_is_warned_about(self):
        self.run_script("true", setting("linux.namespaces", [{"type": "network", "path": "/proc/self/ns/net"}]))
        self.assertIn("joining a network namespace is not implemented", self.warnings)

    def test_own_pids(self):
        self.assertEqual(self.run_script("echo $$"), "1\n")


class Devices(ConfigTest):
    def test_default_ones(self):
        out = self.run_script("for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done; for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done")
        self.assertEqual(out.split(), ["null", "zero", "full", "random", "urandom", "tty", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"])

    def test_given_ones(self):
        devices = [{"path": "/dev/a/b/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 3, "gid": 4},
                   {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}, {"path": "/dev/pipe", "type": "p"}]
        out = self.run_script("stat -c '%F %a %u %g' /dev/a/b/zero; head -c 2 /dev/a/b/zero | wc -c; stat -c '%F %a' /dev/pipe",
                              setting("linux.devices", devices), lambda c: os.path.lexists(self.directory / "bundle/rootfs/bin/wc") or os.symlink("busybox", self.directory / "bundle/rootfs/bin/wc"))
        self.assertEqual(out, "character special file 644 3 4\n2\nfifo 666\n")


    def test_ptmx_is_the_containers_own(self):
        # Docker's privileged containers list the host's.
        devices = [{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}, {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]
        self.assertEqual(self.run_script("readlink /dev/ptmx", setting("linux.devices", devices)), "pts/ptmx\n")


class Features(ConfigTest):
    def test_document(self):
        features = json.loads(self.succeed("features").out)
        self.assertEqual(features["hooks"], ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"])
        options = features["mountOptions"]
        self.assertEqual(options, sorted(set(options)))
        # What the specification demands of every runtime (config.md, "Linux mount options").
        must = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion
            nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw shared
            silent slave strictatime suid sync unbindable"""
        self.assertEqual(set(must.split()) - set(options), set())
        self.assertNotIn("idmap", options)
        self.assertIn("CAP_CHOWN", features["linux"]["capabilities"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
