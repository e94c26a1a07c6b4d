FROM scratch
COPY <<EOF /f
${x?missing}
EOF
