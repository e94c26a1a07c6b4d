FROM scratch
COPY ["a"]
