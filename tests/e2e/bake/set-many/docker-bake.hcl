
target "app" {
  args = { A = "1", B = "2" }
  tags = ["a", "b"]
  platforms = ["linux/amd64"]
  cache-from = ["x"]
  secret = ["id=s,src=old", "id=keep,src=k"]
  output = ["type=docker"]
  inherits = ["base"]
}
target "base" {
  labels = { l = "base" }
  dockerfile = "old"
}
target "other" { args = { A = "1" } }
group "default" { targets = ["app", "other"] }
