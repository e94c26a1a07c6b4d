
variable "A" { default = "a" }
variable "N" { default = 3 }
variable "F" { default = false }
variable "NUL" { default = null }
variable "S" { 
  type = string
}
variable "NT" {
  type = number
  default = 1
}
variable "BT" {
  type = bool
}
variable "LT" {
  type = list(string)
  default = []
}
variable "LN" {
  type = list(number)
}
variable "MT" { type = map(string) }
variable "TT" { type = tuple([string, number, bool]) }
variable "OT" { type = object({ a = string, b = optional(number) }) }
variable "ST" { type = set(string) }
GLOBAL = "not from the environment"
target "default" {
  args = {
    A = A, N = N * 2, F = F, NUL = NUL, S = S, NT = NT + 1, BT = BT, LT = join(",", LT), LN = sum_of(LN),
    MT = jsonencode(MT), TT = jsonencode(TT), OT = jsonencode(OT), ST = jsonencode(ST), G = GLOBAL
  }
}
function "sum_of" {
  params = [list]
  result = add(list[0], list[1])
}
