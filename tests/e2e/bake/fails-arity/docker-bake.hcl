target "default" {
  args = { A = upper("a", "b") }
}
