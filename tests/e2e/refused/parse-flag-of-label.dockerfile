FROM scratch
LABEL --x a=1
