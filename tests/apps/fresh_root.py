"""A fresh root for one run: an overlay over the cached Debian root, entered by chroot or given to an OCI runtime.

Used by the application tests and by bench/compare, so that natively and in a sandbox the same files are seen.
"""
import pathlib
import re

ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
               "TERM=dumb", "DEBIAN_FRONTEND=noninteractive", "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0"]
# By number; the caller's own permitted set decides which of them a container gets, as natively.
CAPABILITY_NAMES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
# Mounts the fresh root at WORK/rootfs, with the files named by $CASE_FILES in /case: sh WORK LOWER-ROOT COMMAND...
MOUNT = """set -e
work=$1 lower=$2; shift 2
mount -t tmpfs -o size=4g tmpfs "$work"
mkdir "$work/upper" "$work/workdir" "$work/rootfs" "$work/upper/case"
mount -t overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/workdir" overlay "$work/rootfs"
for file in $CASE_FILES; do cp "$file" "$work/rootfs/case/"; done
exec "$@"
"""
# Enters a fresh root: sh ROOT COMMAND...
NATIVE = """set -e
root=$1; shift
for d in proc dev tmp sys; do [ -d "$root/$d" ] || mkdir "$root/$d"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t sysfs -o ro sysfs "$root/sys" || true
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
exec env -i $ENVIRONMENT chroot "$root" "$@"
"""


def script_command(shell, script):
    """Runs /case/SCRIPT by `shell`, as the child of another process: the first one of a namespace is special."""
    return ["/bin/sh", "-c", 'cd /case && "$0" "/case/$1"; exit $?', shell, script]


def capabilities():
    permitted = int(re.search(r"^CapPrm:\s*(\w+)", pathlib.Path("/proc/self/status").read_text(), re.M)[1], 16)
    return ["CAP_" + name for number, name in enumerate(CAPABILITY_NAMES) if permitted >> number & 1]


def bundle_config(args, root):
    allowed = capabilities()
    mounts = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "mode=755"]),
        ("/dev/pts", "devpts", "devpts", ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", "shm", ["nosuid", "nodev", "mode=1777"]),
        ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ("/tmp", "tmpfs", "tmpfs", ["mode=1777"]),
    ]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "args": args,
            "env": ENVIRONMENT,
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {kind: allowed for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}],
        },
        "root": {"path": root},
        "hostname": "case",
        "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in mounts],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "mount", "ipc", "uts", "network")]},
    }
