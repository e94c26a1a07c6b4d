target "default" {
  matrix = ["x"]
  name = "x"
}
