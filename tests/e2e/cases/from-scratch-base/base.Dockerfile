FROM busybox AS tools
FROM scratch
COPY --from=tools / /
COPY a /
