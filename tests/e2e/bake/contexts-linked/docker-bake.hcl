
target "app" {
  contexts = { base = "target:base", img = "docker-image://busybox" }
  platforms = ["linux/amd64"]
}
target "base" {
  contexts = { tools = "target:tools" }
  output = ["type=docker"]
  entitlements = ["security.insecure"]
}
target "tools" {
  dockerfile = "tools.Dockerfile"
  tags = ["tools"]
}
