#!/usr/bin/env python3
"""Runs the end-to-end tests against the binary in MEMOBUILD_CI_BIN.

    run.py [-k PATTERN]… [-v] [MODULE…]       for example: run.py -k heredoc test_comparison
"""

import argparse
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import builders
import support


class Result(unittest.TextTestResult):
    """Writes one line for each test with the time it took."""

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def line(self, test, word):
        name = ".".join(test.id().split(".")[-3:])
        self.stream.writeln(f"{word:4} {name} ({time.monotonic() - self.began:.1f} s)")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.line(test, "ok")

    def addError(self, test, err):
        unittest.TestResult.addError(self, test, err)
        self.line(test, "ERR")

    def addFailure(self, test, err):
        unittest.TestResult.addFailure(self, test, err)
        self.line(test, "FAIL")

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self.began = getattr(self, "began", time.monotonic())
        self.line(test, "skip")
        self.stream.writeln(f"     {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="patterns", action="append")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    loader = unittest.TestLoader()
    if args.patterns:
        loader.testNamePatterns = [f"*{pattern}*" for pattern in args.patterns]
    if args.modules:
        suite = loader.loadTestsFromNames(args.modules)
    else:
        suite = loader.discover(builders.HERE)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=0).run(suite)
    # Closing lines that a script can count.
    passed = result.testsRun - len(result.failures) - len(result.errors) - len(result.skipped)
    print(f"e2e: {passed} passed, {len(result.failures) + len(result.errors)} failed, {len(result.skipped)} skipped")
    if not support.BINARY:
        print("e2e: MEMOBUILD_CI_BIN isn't set", file=sys.stderr)
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
