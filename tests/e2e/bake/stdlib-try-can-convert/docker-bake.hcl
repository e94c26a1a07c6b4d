
variable "M" { default = { a = 1 } }
target "default" {
  args = {
    try = try(M.b, "fallback")
    try2 = try(M.a, "fallback")
    can = can(M.b)
    can2 = can(M.a)
    convert = jsonencode(convert(["1", "2"], list(number)))
    convert2 = jsonencode(convert({ a = 1 }, map(string)))
  }
}
