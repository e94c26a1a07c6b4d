FROM scratch AS build
LABEL a=b
