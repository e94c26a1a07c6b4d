FROM scratch
apt-get install curl
