target "default" {
  args = {

    basename = basename("/a/b/c.txt")
    basename2 = basename("")
    dirname = dirname("/a/b/c.txt")
    dirname2 = dirname("c")
    chomp = chomp("x\n\n")
    lower = lower("ABC")
    upper = upper("abcß")
    title = title("hello big world")
    reverse = reverse("abc")
    sanitize = sanitize("a/b:c.d-e_f")
    trimspace = trimspace("  x  ")
    strlen = strlen("héllo")
    trim = trim("??x!?", "!?")
    trimprefix = trimprefix("v1.0", "v")
    trimsuffix = trimsuffix("a.tar", ".tar")
    replace = replace("1 + 2 + 3", "+", "-")
    indent = indent(2, "a\nb")
    join = join("-", ["a", "b"], ["c"])
    split = join("|", split(",", "a,b,,c"))
    split2 = join("|", split("", "abc"))
    substr = substr("hello", 1, 3)
    substr2 = substr("hello", -3, -1)
    regex = regex("[0-9]+", "abc123def456")
    regex1 = regex("(\\w+)@(\\w+)", "me@here")[1]
    regex2 = regex("(?P<user>\\w+)@(?P<host>\\w+)", "me@here").host
    regexall = join(",", regexall("[0-9]+", "a1b22c333"))
    regexallnone = length(regexall("[0-9]+", "abc"))
    regex_replace = regex_replace("aaa-bbb", "(a+)-(b+)", "$2-$${1}x")
    format = format("%s-%d-%05d-%x-%t-%v-%q-%.2f-%5s|%-5s|%%", "a", 3, 42, 255, true, [1, "b"], "q", 3.14159, "r", "l")
    format2 = format("%+d %e %g %b %o %X %#x %[1]d", 5, 12345.678, 0.5, 5, 8, 255, 255)
    formatlist = join(",", formatlist("%s-%s", ["a", "b"], "x"))
  }
}
