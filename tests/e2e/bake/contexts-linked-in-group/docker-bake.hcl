
group "default" { targets = ["app", "base"] }
target "app" { contexts = { base = "target:base" } }
target "base" { output = ["type=docker"] }
