target "default" {
  args = { A = "${target}" }
}
