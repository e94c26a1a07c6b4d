variable "M" { default = { colour = 1 } }
target "default" {
  args = { A = M.color }
}
