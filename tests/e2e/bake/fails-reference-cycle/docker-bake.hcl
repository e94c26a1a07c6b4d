target "default" {
  args = { A = target.b.args.A }
}
target "b" {
  args = { A = target.default.args.A }
}
