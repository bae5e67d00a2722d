# Sourced by each run script in its service dir. s6 starts a dead service again at once, but at most
# once a second; that is right for one death and wrong for a loop, in which python's start alone would
# take a third of a core. From the tenth death within a minute on, one start per 5 s. It waits here,
# not in finish, because an ordered stop ends a run script but has to wait for a finish script.
now=$(date +%s)
recent=0
for death in $(s6-svdt . 2>/dev/null | cut -c10-17); do # TAI64N: seconds since 1970, and 10
  [ $((now + 10 - 0x$death)) -ge 60 ] || recent=$((recent + 1))
done
if [ "$recent" -ge 10 ]; then
  echo "${PWD##*/} ended $recent times within a minute; next start in 5 s"
  trap 'kill $!; exit 0' TERM
  sleep 5 &
  wait $!
  trap - TERM
fi
