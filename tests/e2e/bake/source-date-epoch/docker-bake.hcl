target "default" {}
target "own" { args = { SOURCE_DATE_EPOCH = "5" } }
group "g" { targets = ["default", "own"] }
