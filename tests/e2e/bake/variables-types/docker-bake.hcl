
variable "A" {
  type = string
  default = 5
}
variable "B" {
  type = number
  default = "7"
}
variable "C" {
  type = list(string)
  default = [1, true, "x"]
}
variable "D" {
  type = map(number)
  default = { a = "1" }
}
variable "E" {
  type = object({ x = string, y = optional(bool) })
  default = { x = 1 }
}
variable "F" { 
  type = string 
  description = "no value"
}
target "default" {
  args = { A = A, B = B + 1, C = jsonencode(C), D = D.a + 1, E = jsonencode(E), F = F, G = F == null }
}
