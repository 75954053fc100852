"""cpython_tests.py MODULE...: runs modules of CPython's own test suite, each in a process of its own, and prints for
each its verdict and the tests that failed, sorted; nothing that differs between two good runs (times, addresses)."""
import re
import subprocess
import sys

for module in sys.argv[1:]:
    command = [sys.executable, "-m", "test", "-v", "-u", "none", "--timeout=200", module]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400, cwd="/tmp")
        text = run.stdout.decode(errors="replace")
        bad = sorted(set(re.findall(r"^(?:FAIL|ERROR): (\S+ \(\S+\))", text, re.M)))
        verdict = "passed" if run.returncode == 0 else f"status {run.returncode}"
        ran = re.search(r"^Ran (\d+) tests?", text, re.M)
        print(module, verdict, f"{ran[1]} tests" if ran else "", *bad, sep="\n    " if bad else " ")
        if run.returncode != 0:
            print(text[-3000:], file=sys.stderr)
    except subprocess.TimeoutExpired:
        print(module, "timed out")
    sys.stdout.flush()
