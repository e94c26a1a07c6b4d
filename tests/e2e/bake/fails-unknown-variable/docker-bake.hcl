variable "VERSION" {}
target "default" {
  args = { A = VERSIN }
}
