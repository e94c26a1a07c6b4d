FROM scratch
HEALTHCHECK --timeout=999us CMD true
