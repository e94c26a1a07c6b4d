
variable "TAG" { default = "base" }
variable "X" { default = "x" }
group "default" { targets = ["app"] }
group "g" { targets = ["app"] }
target "app" {
  args = { A = "1", B = "1" }
  tags = ["app:${TAG}"]
  cache-from = ["a"]
  platforms = ["linux/amd64"]
  inherits = ["common"]
}
target "common" { labels = { c = "1" } }
target "more" { labels = { more = "1" } }
