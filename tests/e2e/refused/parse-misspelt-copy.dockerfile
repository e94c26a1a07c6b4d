FROM scratch

LABEL a=1
CPOY a b
