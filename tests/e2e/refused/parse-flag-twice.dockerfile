FROM scratch
COPY --chmod=1 --chmod=2 a b
