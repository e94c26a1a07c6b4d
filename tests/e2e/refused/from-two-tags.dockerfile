FROM debian:12:13
