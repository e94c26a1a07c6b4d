
group "default" { targets = ["a"] }
group "g" { targets = ["b", "c"] }
target "a" {}
target "b" {}
target "c" {}
