target "default" {
  args = { A = }
}
