
function "greet" {
  params = [name]
  result = "hello ${name}"
}
function "tags" {
  params = [repo]
  variadic_params = versions
  result = [for v in versions : "${repo}:${v}"]
}
function "twice" {
  params = [x]
  result = add(x, x)
}
function "nested" {
  params = []
  result = greet(upper(PREFIX))
}
variable "PREFIX" { default = "me" }
target "default" {
  args = { A = greet("you"), B = twice(twice(3)), C = nested() }
  tags = tags("example/x", "1", "2", EXTRA...)
}
EXTRA = ["3", "4"]
