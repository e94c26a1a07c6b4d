"""Certificate authorities that only the user knows: what is reached through TLS with a certificate of theirs."""

import os

import builders
import cache_servers
import faulty
import support


class Authorities(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.need("openssl")
        self.files = self.context("FROM scratch\nCOPY a /a\nCOPY b /b\n", {"a": "a\n" * 100, "b": "b\n" * 100})
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
        builders.run([*new, "-subj", "/CN=an authority", "-keyout", self.path("ca.key"), "-out", self.path("ca.pem")])
        leaf = [*new, "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-subj", "/CN=cache"]
        leaf += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
        builders.run([*leaf, "-keyout", self.path("leaf.key"), "-out", self.path("leaf.crt")])
        parts = [open(self.path(name)).read() for name in ("leaf.key", "leaf.crt")]
        self.certificate = self.write("leaf.pem", "".join(parts))

    def built(self, name, *options, **variables):
        environment = {**os.environ, **variables}
        image = self.build(self.files, *options, cache=self.path(name), dest=self.path(f"image-{name}"), env=environment)
        return self.steps(image.result), image.result.stderr

    def test_caches_behind_an_authority_of_ones_own(self):
        for kind in (cache_servers.Server, cache_servers.S3, cache_servers.Actions):
            with self.subTest(kind.__name__), faulty.Proxy((cache := kind(self)).place, "tls", self.certificate) as proxy:
                name = kind.__name__
                variables = dict(cache.variables(proxy.port, "https"))
                variables["MEMOBUILD_REMOTE_URL"] = cache.address(proxy.port, "https")
                steps, said = self.built(f"{name}-unknown", **variables)
                self.assertEqual(steps, (2, 0))
                self.assertIn("warning: ", said)
                variables["MEMOBUILD_CA_CERTIFICATES"] = self.path("ca.pem")
                self.assertEqual(self.built(f"{name}-1", **variables)[0], (2, 0))
                steps, said = self.built(f"{name}-2", **variables)
                self.assertEqual(steps, (0, 2), said)
                self.assertNotIn("warning", said)

    def test_the_configuration_names_them_too(self):
        cache = cache_servers.Server(self)
        with faulty.Proxy(cache.place, "tls", self.certificate) as proxy:
            settings = f"version: 1\nimage: example/app\nlayers: {{app: {{dockerfile: Dockerfile}}}}\ncache: {{remote: '{cache.address(proxy.port, 'https')}', ca-certificates: ../ca.pem}}\n"
            self.write("context/memobuild.yml", settings)
            for name, ran in (("one", 2), ("two", 0)):
                result = self.memobuild("build", cwd=self.files, cache=self.path(name))
                self.assertEqual(self.steps(result), (ran, 2 - ran), result.stderr)

    def test_what_is_no_certificate_is_refused(self):
        for name, says in (("leaf.key", "has no certificate"), ("nowhere.pem", "can't read")):
            said = self.build_fails(21, self.files, env={**os.environ, "MEMOBUILD_CA_CERTIFICATES": self.path(name)})
            self.assertIn("`MEMOBUILD_CA_CERTIFICATES` names certificates that can't be used", said)
            self.assertIn(says, said)
