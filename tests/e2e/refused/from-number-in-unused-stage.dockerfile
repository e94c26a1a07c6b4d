FROM scratch AS a
COPY --from=7 x /
FROM scratch
LABEL a=1
