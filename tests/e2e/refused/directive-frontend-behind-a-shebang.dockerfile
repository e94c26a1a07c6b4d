#!/usr/bin/env frontend
#syntax=example.com/frontend
FROM scratch
