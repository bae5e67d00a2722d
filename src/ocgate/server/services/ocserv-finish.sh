#!/bin/sh
# One line about how ocserv ended; 256 stands for a signal, which is then $2.
if [ "$1" = 256 ]; then how="was ended by signal $2"; else how="exited with $1"; fi
echo "ocserv $how"
