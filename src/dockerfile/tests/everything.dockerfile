# syntax=docker/dockerfile:1
ARG VERSION=1.2 FLAVOUR
FROM --platform=$BUILDPLATFORM golang:${VERSION} AS Build
MAINTAINER Somebody <a@example.com>
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src dir
ARG GOFLAGS="-v -x" TARGETARCH
ENV A=1 B="two words" C=three\ words
ENV OLD the old form
LABEL a=b "quoted key"='x y'
COPY --chown=1:2 --chmod=755 --link --exclude=*.md --exclude=x go.* src/ ./
COPY --parents ./a/./b/*.go /out/
COPY ["with space", "/to here/"]
ADD archive.tar.gz /opt
RUN --mount=type=cache,target=/root/.cache,id=go,sharing=locked,uid=5,mode=0700 \
    --mount=type=bind,source=/etc,target=/mnt,rw \
    --mount=type=tmpfs,target=/tmp,size=64m \
    --network=none \
    # a comment in between
    go build \
    ./...
RUN ["go", "version"]
RUN <<-EOT bash
	set -e
	echo $A
	EOT
COPY <<one <<"two" /files/
1 $A
one
2 $A
two
FROM scratch
COPY --from=build /out /
USER app:app
EXPOSE 80 443/tcp 9000-9002/udp
VOLUME /data /var/lib/x
VOLUME ["/json"]
HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=500ms --start-interval=1s --retries=3 CMD curl -f localhost
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
ONBUILD RUN echo triggered
ENTRYPOINT ["/app"]
CMD serve --all
