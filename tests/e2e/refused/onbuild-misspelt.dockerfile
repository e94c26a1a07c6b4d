FROM scratch
COPY <<f /f
f
ONBUILD RUNN x
