FROM busybox
ONBUILD RUN mktemp /trigger.XXXXXX && rm /trigger.* && echo x >> /trigger
