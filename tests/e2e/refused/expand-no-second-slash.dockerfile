FROM scratch
ENV x=a
LABEL a=${x/b}
