FROM scratch AS a
COPY --from=c x /
FROM scratch AS b
COPY --from=a x /
FROM scratch AS c
RUN --mount=from=b,target=/b true
FROM scratch
LABEL a=1
