"""`docs/reference/dockerfile-support.md` is what the table of constructs and the cases say."""

import os
import unittest

import constructs
import support
import support_page


class SupportPage(support.EndToEnd):
    needs_binary = False
    needs_root = False

    def test_every_construct_has_a_case_and_every_case_knows_its_constructs(self):
        self.assertEqual(support_page.problems(), [])

    def test_no_construct_stands_twice(self):
        names = [construct.id for entries in constructs.SECTIONS.values() for construct in entries]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreater(len(names), 200)

    def test_the_page_is_up_to_date(self):
        if os.environ.get("UPDATE_DOCS"):
            support_page.write()
        with open(support_page.PAGE) as file:
            self.assertEqual(file.read(), support_page.page(), "UPDATE_DOCS=1 tests/e2e/support_page.py writes it")


if __name__ == "__main__":
    unittest.main()
