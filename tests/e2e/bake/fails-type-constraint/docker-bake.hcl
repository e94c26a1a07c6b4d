variable "A" {
  type = strin
  default = "x"
}
target "default" {}
