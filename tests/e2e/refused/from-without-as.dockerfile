FROM scratch is base
