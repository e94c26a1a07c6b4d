# syntax=docker/dokerfile:1
FROM scratch
