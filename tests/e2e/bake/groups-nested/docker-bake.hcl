
group "default" { targets = ["inner", "c"] }
group "inner" {
  targets = ["a", "b", "inner2"]
  description = "inside"
}
group "inner2" { targets = ["c", "d"] }
group "other" { targets = ["d"] }
target "a" {}
target "b" {}
target "c" {}
target "d" {}
