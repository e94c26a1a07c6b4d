
target "one" {
  args = { A = "a-${target.two.args.B}" }
  tags = ["example/${target.two.target}"]
  platforms = target.two.platforms
  secret = target.two.secret
  dockerfile = target.two.dockerfile
}
target "two" {
  args = { B = "b" }
  target = "stage"
  platforms = ["linux/arm64"]
  secret = ["id=x,src=y"]
  dockerfile = target.three.context
  output = ["type=docker"]
}
target "three" {
  context = "three"
  name_ = "ignored"
}
variable "V" { default = "x" }
group "default" { targets = concat(group.g.targets, ["two"]) }
group "g" { targets = ["one"] }
