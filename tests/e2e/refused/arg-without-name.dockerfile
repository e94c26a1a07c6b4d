FROM scratch
ARG A=1 =2
