FROM scratch
COPY <<f /f
f
ONBUILD COPY --chonw=1 a b
