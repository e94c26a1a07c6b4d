target "default" {
  tags = ["a"
