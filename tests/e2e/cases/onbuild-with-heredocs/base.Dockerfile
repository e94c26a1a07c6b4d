FROM busybox
ENV NAME=base
ONBUILD RUN <<EOF
echo script $NAME > /script
echo $PWD >> /script
EOF
ONBUILD COPY <<one <<two /files/
1 $NAME
one
2
two
ONBUILD ADD <<EOF /added
$NAME
EOF
