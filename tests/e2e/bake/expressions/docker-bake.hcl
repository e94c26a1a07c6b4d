
variable "X" { default = 7 }
target "default" {
  args = {
    add = 1 + 2 * 3
    paren = (1 + 2) * 3
    div = 7 / 2
    whole = 8 / 2
    mod = X % 3
    neg = -X
    not = !true
    cmp = X >= 7
    eq = "7" == X
    eqs = "a" == "a"
    ne = 1 != 2
    and = true && false
    or = false || true
    cond = X > 5 ? "big" : "small"
    condtypes = X > 5 ? "a" : 1
    condnum = X > 5 ? 1 : "b"
    strnum = "3" + 4
    big = 1000000 * 1000000
    float = 0.1 + 0.2
    exp = 1e3
    tern = false ? 1 : true ? 2 : 3
    index = ["a", "b"][1]
    key = { a = { b = "deep" } }.a.b
    dynkey = { (X) = "seven", "q-${X}" = "q" }["7"]
    null = null
    tmpl = "x${X}y${"in${"ner"}"}z"
    unwrapped = "${X}" + 1
    esc = "tab\there \"quoted\" \\ \u00e9"
  }
}
