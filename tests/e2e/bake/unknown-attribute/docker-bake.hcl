
target "default" {
  dockerfil = "x"
  args = { A = "1" }
}
