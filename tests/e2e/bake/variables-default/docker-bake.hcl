
variable "A" { default = "a" }
variable "B" {}
variable "C" { default = "${A}-c" }
variable "N" { default = 3 }
variable "F" { default = false }
variable "L" { default = ["x", "y"] }
variable "M" { default = { k = "v" } }
variable "NUL" { default = null }
GLOBAL = "g-${C}"
target "default" {
  args = { A = A, B = B, C = C, N = N + 1, F = F ? "yes" : "no", L = join("+", L), M = M.k, M2 = M["k"], G = GLOBAL, NUL = NUL, E = NUL == null ? "null" : "set" }
}
