target "default" {
  cache-to = ["dest=x"]
}
