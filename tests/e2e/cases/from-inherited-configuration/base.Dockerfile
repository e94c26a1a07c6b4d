FROM busybox
ENV FROM_BASE=1 PATH=/base/bin:$PATH SHARED=base
RUN echo app:x:1500:1500::/home/app:/bin/sh >> /etc/passwd && mkdir -p /base/dir && echo base > /base/f
LABEL of.base=1 shared=base
WORKDIR /base/dir
VOLUME /base/volume
EXPOSE 80
USER app
SHELL ["/bin/sh", "-x", "-c"]
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s CMD check
ENTRYPOINT ["base-entry"]
CMD ["base-cmd"]
MAINTAINER base
