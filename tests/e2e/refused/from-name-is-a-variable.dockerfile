ARG N=base
FROM scratch AS $N
