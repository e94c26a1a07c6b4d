FROM busybox AS one
RUN --mount=type=bind,from=one,target=/x true
