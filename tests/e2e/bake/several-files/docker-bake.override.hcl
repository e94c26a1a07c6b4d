
variable "TAG" { default = "override" }
X = "attribute"
target "app" {
  args = { B = "2", X = X }
  cache-from = ["b"]
  platforms = ["linux/arm64"]
  inherits = ["more"]
}
group "g" { targets = ["common"] }
