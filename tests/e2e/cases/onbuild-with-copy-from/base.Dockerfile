FROM busybox
ONBUILD COPY --from=builder /artefact /artefact
ONBUILD COPY --from=0 /artefact /by-number
ONBUILD COPY --from=busybox --chown=1:2 /bin/true /from-image
ONBUILD RUN --mount=type=bind,from=builder,target=/m cp /m/artefact /mounted
