FROM scratch
COPY --recursive a b
