#!/bin/sh
# One line about how the service ended; 256 stands for a signal, which is then $2.
if [ "$1" = 256 ]; then how="was ended by signal $2"; else how="exited with $1"; fi
echo "${PWD##*/} $how"
