# Sourced by run and finish scripts in their service dir. s6 starts a dead service again after a
# second, which is right for one death and wrong for a loop, in which python's start alone would take
# a third of a core.

deaths_within() { # SECONDS -> number of deaths
  now=$(echo | s6-tai64n | cut -c10-17) # by s6's clock: TAI, 37 s ahead of date's since 2017
  count=0
  for death in $(s6-svdt . 2>/dev/null | cut -c10-17); do
    [ $((0x$now - 0x$death)) -ge "$1" ] || count=$((count + 1))
  done
  echo "$count"
}

# From the tenth death within a minute on, one start per 5 s. It waits in run and not in finish,
# because an ordered stop ends a run script but has to wait for a finish script.
pause_in_a_loop() {
  deaths=$(deaths_within 60)
  [ "$deaths" -ge 10 ] || return 0
  echo "${PWD##*/} ended $deaths times within a minute; next start in 5 s"
  trap 'kill $!; exit 0' TERM
  sleep 5 &
  wait $!
  trap - TERM
}
