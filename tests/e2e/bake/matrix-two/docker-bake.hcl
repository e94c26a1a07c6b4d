
target "app" {
  name = "${os}-${item.name}"
  matrix = {
    os = ["alpine", "debian"]
    item = [{ name = "x", n = 1 }, { name = "y", n = 2 }]
  }
  args = { OS = os, N = item.n }
  target = item.name
}
group "default" { targets = ["app", "debian-x"] }
