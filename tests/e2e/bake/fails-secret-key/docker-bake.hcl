target "default" {
  secret = ["id=a,path=b"]
}
