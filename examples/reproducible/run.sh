#!/bin/sh
cat /srv/words/upper
