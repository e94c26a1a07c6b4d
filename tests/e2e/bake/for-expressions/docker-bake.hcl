
variable "LIST" { default = ["a", "b", "c"] }
variable "MAP" { default = { x = 1, y = 2 } }
target "default" {
  tags = [for t in LIST : "img:${t}"]
  args = { for k, v in MAP : upper(k) => v * 10 }
  labels = { for i, t in LIST : "l${i}" => t if t != "b" }
  annotations = [for i, t in LIST : "${i}=${t}" if i > 0]
  no-cache-filter = [for k in keys({ for t in LIST : (t == "a" ? "first" : "rest") => t... }) : k]
}
