
variable "N" { default = [1, 2, 3] }
target "default" {
  matrix = { n = N }
  name = "t${n}"
  args = { SQUARE = n * n, BIG = n >= 2 }
}
