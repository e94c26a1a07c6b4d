FROM scratch
ENV --global A=1
