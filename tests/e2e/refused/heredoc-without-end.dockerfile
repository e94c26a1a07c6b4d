FROM scratch
COPY <<EOF /f
never
ends
