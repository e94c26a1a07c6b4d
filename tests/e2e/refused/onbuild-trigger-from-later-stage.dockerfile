FROM scratch AS base
ONBUILD COPY --from=later a /
FROM base AS child
FROM child AS later
