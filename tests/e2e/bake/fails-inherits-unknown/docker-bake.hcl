target "base" {}
target "default" {
  inherits = ["bsae"]
}
