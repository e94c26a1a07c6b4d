FROM debian@sha256:123
