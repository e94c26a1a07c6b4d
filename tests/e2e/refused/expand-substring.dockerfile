FROM scratch
LABEL a=${x:0:2}
