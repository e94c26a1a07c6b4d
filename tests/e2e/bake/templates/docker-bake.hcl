
variable "LIST" { default = ["a", "b", "c"] }
variable "ON" { default = true }
target "default" {
  args = {
    if = "%{ if ON }on%{ else }off%{ endif }"
    ifnot = "x%{ if !ON }on%{ endif }y"
    for = "%{ for x in LIST }${x};%{ endfor }"
    forkey = "%{ for i, x in LIST }${i}=${x} %{ endfor }"
    strip = "a  ${~ "b" ~}  c"
    stripif = "a %{~ if ON ~} b %{~ endif ~} c"
    formap = "%{ for k, v in { p = 1, q = 2 } }${k}${v}%{ endfor }"
  }
  dockerfile-inline = <<EOT
%{ for x in LIST ~}
RUN echo ${x}
%{ endfor ~}
END
EOT
}
