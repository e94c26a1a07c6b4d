FROM scratch
VOLUME [null]
