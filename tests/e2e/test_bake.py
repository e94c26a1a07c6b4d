"""`build --bake`: plans as buildx makes them, and builds of several targets as one graph."""

import json
import os

import bakes
import support


class Plans(support.EndToEnd):
    needs_root = False

    def test_plans_are_those_of_buildx(self):
        names = bakes.names()
        self.assertGreater(len(names), 90)
        for name in names:
            with self.subTest(name):
                problem = bakes.Bake(name).problem(support.BINARY)
                if problem:
                    self.fail(problem)
