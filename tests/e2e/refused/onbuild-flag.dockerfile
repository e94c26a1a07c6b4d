FROM scratch
ONBUILD --later RUN x
