FROM scratch
ENV a=1
ENV b=${a:+${c:?no_c}}
