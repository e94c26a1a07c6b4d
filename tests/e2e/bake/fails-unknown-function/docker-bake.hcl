target "default" {
  args = { A = uper("x") }
}
