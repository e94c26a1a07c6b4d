FROM scratch AS 1
