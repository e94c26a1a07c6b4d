# check=skip=all
# check=skip=all
FROM scratch
