# check=skip=all
# syntax=example.com/frontend:1 option
FROM scratch
