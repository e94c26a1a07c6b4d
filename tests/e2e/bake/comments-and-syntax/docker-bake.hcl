
# a comment
// another
/* a
   block */
variable "A" {
  default = "x" # trailing
}
target "default" {
  args = {
    A : "colon",
    "quoted" = "q"
    (A) = "key"
    b-c = 1,
  }
  tags = [
    "a",
    "b", # with a comma
  ]
}
target quoted-not { tags = ["z"] }
group "g" { targets = ["default", "quoted-not"] }
