FROM scratch
RUNN make
