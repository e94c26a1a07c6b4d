FROM scratch
LABEL a="open
