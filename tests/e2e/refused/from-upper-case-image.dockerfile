FROM Debian:12
