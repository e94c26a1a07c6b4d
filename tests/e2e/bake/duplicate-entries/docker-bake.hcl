
target "default" {
  cache-from = ["a", "b", "a", "c", "b"]
  output = ["type=docker", "type=oci,dest=x", "type=docker"]
  attest = ["type=sbom", "type=provenance", "type=sbom,disabled=true"]
  ssh = ["default", "key", "default"]
  tags = ["a", "", "b", "a"]
}
