
variable "LIST" { default = [{ a = 1, b = ["x"] }, { a = 2, b = ["y"] }] }
target "default" {
  args = {
    A = join(",", LIST[*].a)
    B = join(",", LIST.*.a)
    C = LIST[1].b[0]
    D = LIST.0.a
    E = join(",", flatten(LIST[*].b))
    F = length(null[*])
    G = jsonencode("x"[*])
    H = join(",", target.other.tags[*])
  }
}
target "other" { tags = ["p", "q"] }
