
target "default" {
  context = "${BAKE_CMD_CONTEXT}ctx"
  dockerfile = "cwd://file"
  args = { P = replace(BAKE_LOCAL_PLATFORM, "/", "-") != "" }
}
variable "BAKE_LOCAL_PLATFORM" { default = "ignored" }
