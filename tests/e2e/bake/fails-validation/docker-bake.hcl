
variable "PORT" {
  default = 80
  validation {
    condition = PORT > 100
    error_message = "PORT must be above 100, not ${PORT}."
  }
}
target "default" {}
