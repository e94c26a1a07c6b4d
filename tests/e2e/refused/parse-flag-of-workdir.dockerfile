FROM scratch
WORKDIR --create /a
