FROM scratch
EXPOSE localhost:80:8080
