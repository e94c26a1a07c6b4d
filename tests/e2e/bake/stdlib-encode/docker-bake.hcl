target "default" {
  args = {

    base64encode = base64encode("hello")
    base64decode = base64decode("aGVsbG8=")
    md5 = md5("hello")
    sha1 = sha1("hello")
    sha256 = sha256("hello")
    sha512 = sha512("hello")
    urlencode = urlencode("a b/c?d=é~")
    uuidv5 = uuidv5("dns", "example.com")
    uuidv5u = uuidv5("6ba7b811-9dad-11d1-80b4-00c04fd430c8", "https://example.com")
    jsonencode = jsonencode({ b = [1, true, null, "x"], a = 1.5 })
    jsondecode = jsondecode("{\"a\": [1, {\"b\": \"deep\"}]}").a[1].b
    csvdecode = jsonencode(csvdecode("a,b\n1,2\n\"x,y\",z\n"))
  }
}
