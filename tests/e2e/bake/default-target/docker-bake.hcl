
target "default" { tags = ["x"] }
target "other" {}
