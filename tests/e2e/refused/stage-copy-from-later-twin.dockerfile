FROM scratch AS twin
COPY a /a

FROM scratch AS early
COPY --from=twin /a /a

FROM scratch AS twin
COPY --from=early /a /b
