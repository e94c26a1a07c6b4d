FROM scratch AS a
FROM scratch AS b
COPY --from=a x /
FROM scratch AS a
FROM b
