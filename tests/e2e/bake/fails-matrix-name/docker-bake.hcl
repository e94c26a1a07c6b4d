target "default" {
  matrix = { a = ["x", "y"] }
  name = "same"
}
