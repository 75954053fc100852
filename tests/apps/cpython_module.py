#!/usr/bin/env python3
"""Runs one module of CPython's own test suite natively and in the sandbox and compares every test's outcome:
cpython_module.py MODULE [--runsc FILE --platform NAME].

A test may end otherwise than on Linux only as cpython_differences.txt says, with the reason; an entry there that is not
true any more is an error too. Without --runsc only the native run is made: it must come to its end.
"""
import argparse
import pathlib
import re
import sys

sys.dont_write_bytecode = True
import run_case  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


class ModuleCase(run_case.Case):
    def __init__(self, module):
        limit = next(line.split()[1] for line in (HERE / "cpython_modules.txt").read_text().splitlines()
                     if line.split()[:1] == [module])
        self.path = HERE / "case_files/cpython_outcomes.py"
        self.timeout = int(limit)
        self.root = ""
        self.command = ["/bin/sh", "-c", f"python3 /case/cpython_outcomes.py {module}; exit $?"]


def known_differences(module):
    """{test: (native outcome, outcome in the sandbox, always)}"""
    known = {}
    for line in (HERE / "cpython_differences.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            where, test, native, sandbox, when = line.split(maxsplit=5)[:5]
            if where == module:
                known[test] = (native, sandbox, when == "always")
    return known


def outcomes(status, out, err):
    """{test: outcome}, or None when the run broke off."""
    found = dict(reversed(line.split(" ", 1)) for line in out.splitlines() if " " in line)
    end = re.search(r"^end (.*)$", out, re.M)
    if not end:
        print(f"the run broke off: {status}\n{err[-3000:]}")
        return None
    found.pop(end[1], None)
    found["end"] = end[1]
    return found


def compare(native, sandbox, known):
    """The lines of what is not as it should be."""
    tests = sorted(native.keys() | sandbox.keys())
    # The exit status says something new only when no test differs.
    if any(native.get(test) != sandbox.get(test) for test in tests if test != "end"):
        tests.remove("end")
    for test in tests:
        pair = (native.get(test, "-"), sandbox.get(test, "-"))
        expected = known.pop(test, None)
        if expected and expected[:2] == pair:
            continue
        if pair[0] != pair[1]:
            yield f"{test}: native {pair[0]}, sandbox {pair[1]}"
        elif expected and expected[2]:
            yield f"{test}: ends as on Linux ({pair[0]}): take it out of cpython_differences.txt"
    for test in known:
        yield f"{test}: there is no such test"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("--runsc")
    parser.add_argument("--platform", default="ptrace")
    options = parser.parse_args()
    case = ModuleCase(options.module)
    with run_case.test_root(case) as (lower, work):
        native = outcomes(*run_case.run_native(case, lower, work))
        if native is None:
            sys.exit(1)
        counts = ", ".join(f"{list(native.values()).count(o)} {o}" for o in sorted(set(native.values())) if not o.isdigit())
        if not options.runsc:
            print(f"native: {counts}")
            sys.exit(0)
        status, out, err = run_case.run_sandboxed(case, lower, work, options)
    sandbox = outcomes(status, out, err)
    if sandbox is None:
        sys.exit(1)
    differences = list(compare(native, sandbox, known_differences(options.module)))
    if not differences:
        print(f"equal but for what is known: {counts}")
        sys.exit(0)
    print("\n".join(differences))
    for line in differences:
        # What the sandbox said about it: from the test's heading to the next one.
        name = re.escape(line.split(":")[0].split(".")[-1])
        shown = re.search(rf"^=+\n(?:FAIL|ERROR): {name} (?s:.*?)(?=^=+$|\Z)", err, re.M)
        print(shown[0][-2500:] if shown else "", end="")
    sys.exit(1)


main()
