
variable "BASE" { default = "busybox" }
target "default" {
  dockerfile-inline = <<EOT
FROM ${BASE}
RUN echo "$HOME" && echo $${HOME}
EOT
}
target "indented" {
  dockerfile-inline = <<-EOT
    FROM scratch
      COPY . /
    EOT
}
group "both" { targets = ["default", "indented"] }
