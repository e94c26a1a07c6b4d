FROM scratch AS my/base
