target "default" {
  contexts = { a = "target:b" }
  platforms = ["linux/amd64", "linux/arm64"]
}
target "b" { platforms = ["linux/amd64", "linux/s390x"] }
