# setup
ARG A=1
RUN make
FROM scratch
