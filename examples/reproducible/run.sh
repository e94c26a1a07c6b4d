#!/bin/sh
cat /srv/words/part-*
