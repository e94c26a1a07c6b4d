FROM scratch
ARG version
USER ${version:?"set it"}
