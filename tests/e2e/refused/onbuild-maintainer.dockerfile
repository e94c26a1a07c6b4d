FROM scratch
ONBUILD maintainer x
