
target "app" {
  name = "app-${replace(v, ".", "-")}"
  matrix = { v = ["1.0", "2.0"] }
  args = { VERSION = v }
  tags = ["app:${v}"]
}
