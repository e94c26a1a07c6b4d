group "default" {
  matrix = { a = ["x"] }
  targets = []
}
