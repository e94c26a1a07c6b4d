
variable "TAG" { default = "hcl" }
group "release" { targets = ["app_web", "extra"] }
target "app_web" {
  args = { B = "hcl", C = TAG }
  platforms = ["linux/amd64", "linux/arm64"]
}
target "extra" { inherits = ["lib"] }
