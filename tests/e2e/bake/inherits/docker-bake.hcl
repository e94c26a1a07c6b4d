
target "base" {
  args = { A = "base", B = "base", C = null }
  tags = ["base:1"]
  labels = { l = "base" }
  platforms = ["linux/amd64"]
  cache-from = ["base/cache"]
  cache-to = ["type=inline"]
  secret = ["id=s,src=base"]
  output = ["type=docker"]
  annotations = ["a=1"]
  no-cache-filter = ["b"]
  ulimits = ["nofile=1"]
  entitlements = ["network.host"]
  contexts = { x = "base", y = "base" }
  description = "of base"
  dockerfile = "base.Dockerfile"
}
target "mixin" {
  args = { B = "mixin", D = "mixin" }
  labels = { m = "mixin" }
  secret = ["id=t,src=mixin", "id=s,src=mixin"]
  cache-from = ["mixin/cache"]
}
target "app" {
  inherits = ["base", "mixin"]
  args = { D = "app", C = "app" }
  tags = ["app:1"]
  contexts = { y = "" }
  annotations = ["b=2", "a=1"]
  platforms = []
  output = []
}
target "reversed" {
  inherits = ["mixin", "base"]
  dockerfile = ""
}
target "deep" {
  inherits = ["app"]
  cache-from = ["app/cache", "base/cache"]
}
group "default" { targets = ["app", "reversed", "deep"] }
