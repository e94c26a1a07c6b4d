FROM scratch
COPY <<one <<two /d/
1
one
2
