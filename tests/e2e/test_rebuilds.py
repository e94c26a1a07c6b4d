"""Build, change one thing, build again: what must be noticed is, and what must not isn't."""

import os

import images
import support


class Rebuilds(support.EndToEnd):
    def rebuilt(self, dockerfile, change, files=None, options=((), ())):
        """Builds twice with `change` in between; returns both images, and the steps that ran the second time."""
        context = self.context(dockerfile, files or {})
        first = self.build(context, *options[0], dest=self.path("first"))
        self.assertEqual(self.steps(self.build(context, *options[0], dest=self.path("same")).result)[0], 0, "an unchanged build hits")
        change(context)
        second = self.build(context, *options[1], dest=self.path("second"))
        self.verify_cache()
        return first, second, self.steps(second.result)[0]

    def differs(self, *args, **settings):
        first, second, ran = self.rebuilt(*args, **settings)
        self.assertTrue(images.compare_trees(first.listing(), second.listing()), "the change is not in the image")
        self.assertGreater(ran, 0)
        return first.listing(), second.listing()

    def hits(self, *args, **settings):
        first, second, ran = self.rebuilt(*args, **settings)
        self.assertEqual(ran, 0)
        self.assertEqual(first.digest, second.digest)

    def test_the_executable_bit_is_noticed(self):
        before, after = self.differs("FROM busybox\nCOPY f /f\n", lambda context: os.chmod(f"{context}/f", 0o755), {"f": "x"})
        self.assertEqual((before["f"].mode & 0o777, after["f"].mode & 0o777), (0o644, 0o755))

    def test_the_executable_bit_below_a_directory_reaches_a_run(self):
        files = {"d/f": "#!/bin/sh\n"}
        self.differs("FROM busybox\nCOPY d /d\nRUN ls -l /d/f | cut -c1-10 >/modes\n", lambda context: os.chmod(f"{context}/d/f", 0o755), files)

    def test_the_target_of_a_symlink_is_noticed(self):
        context = self.context("", {"d/a": "same", "d/b": "same"})
        os.symlink("a", f"{context}/d/l")

        def change(context):
            os.remove(f"{context}/d/l")
            os.symlink("b", f"{context}/d/l")

        self.differs("FROM busybox\nCOPY d /d\n", change)

    def test_a_symlink_that_becomes_a_file_is_noticed(self):
        context = self.context("", {"d/a": "same"})
        os.symlink("a", f"{context}/d/l")

        def change(context):
            os.remove(f"{context}/d/l")
            self.write("context/d/l", "same")

        self.differs("FROM busybox\nCOPY d /d\n", change)

    def test_what_a_copied_symlink_points_to_is_noticed(self):
        context = self.context("", {"real": "one"})
        os.symlink("real", f"{context}/l")
        self.differs("FROM busybox\nCOPY l /f\n", lambda context: self.write("context/real", "two"))

    def test_a_change_of_the_same_size_and_time_is_noticed(self):
        def change(context):
            status = os.stat(f"{context}/f")
            self.write("context/f", "two")
            os.utime(f"{context}/f", ns=(status.st_atime_ns, status.st_mtime_ns))

        self.differs("FROM busybox\nCOPY f /f\n", change, {"f": "one"})

    def test_the_text_of_a_heredoc_is_noticed(self):
        text = "FROM busybox\nCOPY <<EOF /f\n{}\nEOF\nRUN <<EOF\necho {} >/g\nEOF\n"
        before, after = self.differs(text.format("one", "one"), lambda _: self.write("context/Dockerfile", text.format("two", "one")))
        self.assertEqual(before["g"].sha256, after["g"].sha256)
        self.assertNotEqual(before["f"].sha256, after["f"].sha256)

    def test_the_text_of_a_run_heredoc_is_noticed(self):
        text = "FROM busybox\nRUN <<EOF\necho {} >/g\nEOF\n"
        self.differs(text.format("one"), lambda _: self.write("context/Dockerfile", text.format("two")))

    def test_a_variable_in_a_heredoc_is_noticed(self):
        options = (("--build-arg", "A=one"), ("--build-arg", "A=two"))
        self.differs("FROM busybox\nARG A\nCOPY <<EOF /f\n$A\nEOF\n", lambda _: None, options=options)

    def test_the_order_of_build_args_is_nothing(self):
        arguments = ("--build-arg", "A=1"), ("--build-arg", "B=2")
        options = (arguments[0] + arguments[1], arguments[1] + arguments[0])
        self.hits("FROM busybox\nARG A\nARG B\nRUN echo $A $B >/f\nCOPY f /g\n", lambda _: None, {"f": "x"}, options=options)

    def test_build_args_that_change_places_are_noticed(self):
        options = (("--build-arg", "A=1", "--build-arg", "B=2"), ("--build-arg", "A=2", "--build-arg", "B=1"))
        self.differs("FROM busybox\nARG A\nARG B\nRUN echo $A $B >/f\n", lambda _: None, options=options)

    def test_words_that_move_between_arguments_are_noticed(self):
        options = (("--build-arg", "A=x y", "--build-arg", "B=z"), ("--build-arg", "A=x", "--build-arg", "B=y z"))
        self.differs('FROM busybox\nARG A\nARG B\nRUN echo "$A-$B" >/f\n', lambda _: None, options=options)

    def test_the_name_of_a_copied_file_is_noticed(self):
        self.differs("FROM busybox\nCOPY d /d\n", lambda context: os.rename(f"{context}/d/a", f"{context}/d/b"), {"d/a": "x"})

    def test_the_name_that_a_wildcard_matches_is_noticed(self):
        self.differs("FROM busybox\nCOPY *.txt /d/\n", lambda context: os.rename(f"{context}/a.txt", f"{context}/b.txt"), {"a.txt": "x"})

    def test_files_that_move_between_directories_are_noticed(self):
        files = {"d/a/f": "x", "d/b/g": "y"}
        self.differs("FROM busybox\nCOPY d /d\n", lambda context: os.rename(f"{context}/d/a/f", f"{context}/d/b/f"), files)

    def test_an_empty_directory_is_noticed(self):
        self.differs("FROM busybox\nCOPY d /d\n", lambda context: os.mkdir(f"{context}/d/new"), {"d/a": "x"})

    def test_a_new_match_in_an_earlier_stage_is_noticed(self):
        self.differs(
            "FROM busybox AS a\nCOPY s /s\nFROM scratch AS b\nCOPY --from=a /s/*.o /\nFROM busybox\nCOPY --from=b / /o/\n",
            lambda _: self.write("context/s/two.o", "2"),
            {"s/one.o": "1"},
        )

    def test_what_a_chain_of_copies_leaves_out_is_nothing(self):
        """The first stage changes; what the last one takes of it doesn't."""
        text = "FROM busybox AS a\nCOPY s /s\nFROM scratch AS b\nCOPY --from=a /s/one /\nFROM busybox\nCOPY --from=b / /o/\nRUN cat /o/one >/f\n"
        first, second, ran = self.rebuilt(text, lambda _: self.write("context/s/two", "changed"), {"s/one": "1", "s/two": "2"})
        self.assertEqual(first.digest, second.digest)
        self.assertEqual(ran, 1, "only the COPY of both files")

    def test_an_excluded_file_is_nothing(self):
        files = {"d/a": "x", "d/b.log": "y", "d/s/c.log": "z"}
        self.hits("FROM busybox\nCOPY --exclude=**/*.log d /d\n", lambda _: self.write("context/d/s/c.log", "other"), files)

    def test_a_file_beside_those_of_parents_is_nothing(self):
        files = {"d/a/x": "x", "d/a/y": "y"}
        self.hits("FROM busybox\nCOPY --parents d/*/x /p/\n", lambda _: self.write("context/d/a/y", "other"), files)

    def test_a_file_of_parents_is_noticed(self):
        files = {"d/a/x": "x", "d/a/y": "y"}
        self.differs("FROM busybox\nCOPY --parents d/**/x /p/\n", lambda _: self.write("context/d/b/x", "new"), files)

    def test_an_ignored_file_is_nothing(self):
        files = {".dockerignore": "*.log\nDockerfile\n.dockerignore\n", "a": "x", "b.log": "y"}
        self.hits("FROM busybox\nCOPY . /d\n", lambda _: self.write("context/b.log", "other"), files)

    def test_a_file_that_is_no_longer_ignored_is_noticed(self):
        files = {".dockerignore": "*.log\n.dockerignore\n", "a": "x", "b.log": "y"}
        self.differs("FROM busybox\nCOPY . /d\n", lambda _: self.write("context/.dockerignore", "*.log\n.dockerignore\n!b.log\n"), files)

    def test_owner_mode_and_link_of_the_instruction_are_noticed(self):
        for flag in ("--chown=1:2", "--chown=1", "--chmod=600", "--chmod=u+x"):
            with self.subTest(flag=flag):
                text = "FROM busybox\nCOPY f /f\n"
                changed = text.replace("COPY", f"COPY {flag}")
                self.differs(text, lambda _, changed=changed: self.write("context/Dockerfile", changed), {"f": "x"})

    def test_the_owner_of_a_name_is_noticed(self):
        """The number behind the name changes in the base."""
        text = "FROM busybox\nRUN echo 'web:x:{0}:{0}::/:/bin/sh' >>/etc/passwd\nCOPY --chown=web f /f\n"
        before, after = self.differs(text.format(1001), lambda _: self.write("context/Dockerfile", text.format(1002)), {"f": "x"})
        self.assertEqual((before["f"].uid, after["f"].uid), (1001, 1002))

    def test_a_directory_that_the_base_makes_a_symlink_is_noticed(self):
        text = "FROM busybox\nRUN mkdir /real {}\nCOPY f /d/f\n"
        before, after = self.differs(text.format("/d"), lambda _: self.write("context/Dockerfile", text.format("&& ln -s real /d")), {"f": "x"})
        self.assertIn("d/f", before)
        self.assertIn("real/f", after)

    def test_an_equal_stage_under_another_name_hits(self):
        text = "FROM busybox AS {0}\nCOPY f /f\nRUN cat /f >/g\nFROM scratch\nCOPY --from={0} /g /g\n"
        self.hits(text.format("one"), lambda _: self.write("context/Dockerfile", text.format("two")), {"f": "x"})
