"""Dockerfiles that must be refused are refused, with the recorded messages (`refused.py`)."""

import unittest

import builders
import refused
import support


class Refused(support.EndToEnd):
    """One test for each file."""

    def test_the_recordings_are_complete(self):
        files = refused.load()
        self.assertGreaterEqual(len(files), 20)
        problems = {file.name: refused.problem_with_buildkit(file) for file in files}
        self.assertEqual({name: problem for name, problem in problems.items() if problem}, {})


def add_tests():
    for file in refused.load():

        def test(self, file=file):
            memobuild = support.shared(builders.Memobuild, support.BINARY)
            problem = refused.problem_of(file, memobuild, self.directory)
            if problem:
                self.fail(problem)

        setattr(Refused, f"test_{file.name.replace('-', '_')}", test)


add_tests()

if __name__ == "__main__":
    unittest.main()
