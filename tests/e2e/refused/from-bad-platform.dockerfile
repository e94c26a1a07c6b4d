FROM --platform=linux/amd64/v2/x scratch
