
group "default" { targets = ["a", "b", "c", "d", "e"] }
target "a" { context = "./dir/../other/" }
target "b" { context = "https://github.com/example/x.git#main:sub" }
target "c" { context = "cwd://x" }
target "d" { context = "/abs/path" }
target "e" { 
  context = ".." 
  contexts = { p = "./x/../y", g = "https://example.com/a.tar", c = "cwd://z" }
}
