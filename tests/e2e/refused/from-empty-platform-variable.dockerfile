FROM --platform=$PLATFROM scratch
