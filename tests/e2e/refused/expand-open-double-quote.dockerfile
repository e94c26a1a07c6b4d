FROM scratch
WORKDIR "/a
