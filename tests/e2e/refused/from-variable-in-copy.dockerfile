ARG N=a
FROM scratch AS a
FROM scratch
COPY --from=$N x /
