target "default" {
  args = {

    formatdate = formatdate("YYYY-MM-DD'T'hh:mm:ss EEEE EEE MMMM MMM D M YY H HH AA aa Z ZZZ ZZZZ ZZZZZ", "2026-03-05T15:04:09Z")
    formatdate2 = formatdate("hh:mm Z ZZZZ", "2026-03-05T05:04:09+02:30")
    formattimestamp = formattimestamp("YYYY-MM-DD", 1700000000)
    formattimestamp2 = formattimestamp("X", "2026-01-01T00:00:00Z")
    timeadd = timeadd("2026-01-31T23:00:00Z", "1h30m")
    timeadd2 = timeadd("2026-01-31T23:00:00Z", "-24h")
    unixtimestampparse = jsonencode(unixtimestampparse(1690328596))
    istime = can(formatdate("YYYY", timestamp()))
    cidrhost = cidrhost("10.12.127.0/20", 268)
    cidrhostneg = cidrhost("10.0.0.0/24", -2)
    cidrhost6 = cidrhost("fd00:fd12:3456:7890::/72", 34)
    cidrnetmask = cidrnetmask("172.16.0.0/12")
    cidrsubnet = cidrsubnet("172.16.0.0/12", 4, 2)
    cidrsubnet6 = cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)
    cidrsubnets = join(" ", cidrsubnets("10.1.0.0/16", 4, 4, 8, 4))
    semvercmp = semvercmp("1.2.3", ">= 1.0, < 2")
    semvercmp2 = semvercmp("2.0.0", "~1.4")
    homedir = homedir()
  }
}
