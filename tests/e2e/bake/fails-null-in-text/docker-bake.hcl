variable "N" { default = null }
target "default" {
  args = { A = "x${N}" }
}
