#!/usr/bin/env python3
"""Rules about the tree itself: tree_rules.py ROOT includes|length|words|coverage|format.

includes  runsc -> sentry -> {fs, net} -> platform: includes point down, fs and net ignore each other, so do the
          platforms, and nothing of the product includes tests or bench
length    no source file has more than 800 lines
words     nothing is put off in the code: no such words, no disabled tests
coverage  every system call that syscalls.inc calls implemented is called by a test of tests/guest
format    clang-format would change nothing
Prints one line for each breach and exits 1 when there is one.
"""
import pathlib
import re
import subprocess
import sys

SOURCE = {".cc", ".h", ".c", ".S", ".inc"}
TOP = ["platform", "fs", "net", "sentry", "runsc", "tests", "bench", "tools"]
MAY_INCLUDE = {
    "platform": {"platform"},
    "fs": {"fs", "platform"},
    "net": {"net", "platform"},
    "sentry": {"sentry", "fs", "net", "platform"},
    "runsc": {"runsc", "sentry", "fs", "net", "platform"},
}
PLATFORMS = {"ptrace", "systrap"}
MAX_LINES = 800
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
PUT_OFF = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b|\bDISABLED_\w")


def sources(root):
    for top in TOP:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCE and path.is_file():
                yield path


def includes(root):
    for path in sources(root):
        parts = path.relative_to(root).parts
        allowed = MAY_INCLUDE.get(parts[0])
        if allowed is None:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1).split("/")
            where = f"{path.relative_to(root)}:{number}"
            if target[0] in TOP and target[0] not in allowed:
                yield f"{where}: {parts[0]} may not include {match.group(1)}"
            if parts[0] == "platform" and parts[1] in PLATFORMS and len(target) > 1 and target[0] == "platform":
                if target[1] in PLATFORMS - {parts[1]}:
                    yield f"{where}: platform {parts[1]} may not know platform {target[1]}"


def length(root):
    for path in sources(root):
        lines = path.read_bytes().count(b"\n")
        if lines > MAX_LINES:
            yield f"{path.relative_to(root)}: {lines} lines, at most {MAX_LINES}"


def words(root):
    for path in sources(root):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = PUT_OFF.search(line)
            if match:
                yield f"{path.relative_to(root)}:{number}: '{match.group(0)}'"


# Calls that the C library makes under another name, which the tests use.
CALLED_AS = {
    "rt_sigreturn": "RtSigreturnWithGarbageDies",
}
IMPLEMENTED = re.compile(r"^(?:SYSCALL|PARTIAL)\(\d+,\s*(\w+)", re.M)


def coverage(root):
    rows = root / "sentry/syscalls/syscalls.inc"
    tests = "".join(path.read_text() for path in (root / "tests/guest").rglob("*") if path.suffix in SOURCE)
    for name in IMPLEMENTED.findall(rows.read_text()):
        if not re.search(rf"\bSYS_{name}\b|\b{CALLED_AS.get(name, name)}\b", tests):
            yield f"tests/guest never calls {name}"


def clang_format(root):
    files = [str(path) for path in sources(root) if path.suffix in {".cc", ".h", ".c"}]
    for start in range(0, len(files), 64):
        command = ["clang-format", "--dry-run", "--ferror-limit=1", *files[start : start + 64]]
        output = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False).stderr
        for name in sorted({line.split(":")[0] for line in output.splitlines() if "clang-format-violations" in line}):
            yield f"{pathlib.Path(name).relative_to(root)}: clang-format would change it"


def main():
    checks = {"includes": includes, "length": length, "words": words, "coverage": coverage, "format": clang_format}
    if len(sys.argv) != 3 or sys.argv[2] not in checks:
        sys.exit(__doc__.splitlines()[0])
    breaches = list(checks[sys.argv[2]](pathlib.Path(sys.argv[1]).resolve()))
    print("\n".join(breaches) if breaches else "no breach")
    sys.exit(1 if breaches else 0)


main()
