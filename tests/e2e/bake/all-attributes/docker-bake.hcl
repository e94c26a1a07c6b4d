
target "default" {
  description = "everything at once"
  annotations = ["org.opencontainers.image.title=x", "index:org.opencontainers.image.version=${1 + 1}"]
  args = {
    A = "a"
    B = 2
    C = true
    D = null
    E = 1.5
    F = "literal $${HOME} %%{ x"
  }
  attest = ["type=provenance,mode=max", { type = "sbom", generator = "x/y" }]
  cache-from = ["example/cache", "type=local,src=cache", { type = "gha", scope = "a" }]
  cache-to = ["type=local,dest=cache,mode=max"]
  call = "check"
  context = "app"
  contexts = {
    base = "docker-image://busybox:1.36"
    src = "../src"
    empty = ""
  }
  dockerfile = "Dockerfile.app"
  entitlements = ["security.insecure"]
  extra-hosts = { db = "10.0.0.1", gone = null }
  labels = { "com.example.a" = "1", "com.example.b" = null }
  network = "host"
  no-cache = true
  no-cache-filter = ["one", "two", "one"]
  output = ["type=docker", "out", { type = "oci", dest = "x.tar", compression = "zstd" }, "type=registry"]
  platforms = ["linux/amd64", "linux/arm64", "linux/amd64"]
  pull = false
  secret = ["id=a,src=a.txt", { type = "env", id = "b", env = "B" }, "type=env,id=c,source=CC"]
  shm-size = "128m"
  ssh = ["default", { id = "key" }]
  tags = ["example/app:1", "example/app:latest"]
  target = "final"
  ulimits = ["nofile=1024:2048", "nproc=10"]
}
