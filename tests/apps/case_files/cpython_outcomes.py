"""cpython_outcomes.py MODULE: runs one module of CPython's own test suite and prints how each of its tests ended, one
line a test: OUTCOME ID. Then "end" and the exit status of the whole, which tells of failures that are no test's."""
import os
import sys

from test.support import testresult

ORDER = ["ok", "skipped", "expected failure", "unexpected success", "failed", "error"]
outcomes = {}


def note(test, outcome):
    """The worst of a test's parts counts."""
    name = test.id()
    if ORDER.index(outcome) >= ORDER.index(outcomes.get(name, "ok")):
        outcomes[name] = outcome


def recording(name, outcome):
    original = getattr(testresult.RegressionTestResult, name)

    def method(self, test, *args):
        note(test, outcome)
        return original(self, test, *args)

    setattr(testresult.RegressionTestResult, name, method)


for method_name, what in (("addSuccess", "ok"), ("addSkip", "skipped"), ("addExpectedFailure", "expected failure"),
                          ("addUnexpectedSuccess", "unexpected success"), ("addFailure", "failed"), ("addError", "error")):
    recording(method_name, what)


def add_sub_test(self, test, subtest, error, original=testresult.RegressionTestResult.addSubTest):
    if error is not None:
        note(test, "failed" if issubclass(error[0], test.failureException) else "error")
    return original(self, test, subtest, error)


testresult.RegressionTestResult.addSubTest = add_sub_test


def finish(status):
    for name, outcome in sorted(outcomes.items()):
        print(f"{outcome.replace(' ', '-')} {name}", file=report)
    print("end", status, file=report)
    report.flush()


if __name__ == "__main__":
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what tests print is no outcome
    os.chdir("/tmp")
    from test import libregrtest
    sys.argv = [sys.argv[0], "-v", "-u", "none", *sys.argv[1:]]
    try:
        libregrtest.main()
        finish(0)
    except SystemExit as end:
        finish(end.code)
