FROM scratch
COPY --chown=1 \
  # who may
     --chmdo=1 \
  a b
