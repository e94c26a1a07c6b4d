# syntax=example.com/other/frontend:1
FROM scratch
