
variable "PORT" {
  type = number
  default = 80
  validation {
    condition = PORT > 0 && PORT < 65536
    error_message = "a port"
  }
  validation {
    condition = contains([80, 443], PORT)
    error_message = "one of two"
  }
}
target "default" { args = { PORT = PORT } }
