FROM scratch
HEALTHCHECK --delay=5s CMD true
