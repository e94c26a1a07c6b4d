
target "default" {
  network = "host"
  entitlements = ["network.host", "device"]
}
