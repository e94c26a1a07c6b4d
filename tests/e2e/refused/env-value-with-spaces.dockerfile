FROM scratch
ENV A=one two
