# Sourced by run scripts: what a service may do is less than what root may. Without CAP_SETPCAP (a
# container with --cap-drop ALL) nothing can be given away, and the container's own list is the limit.

# hold_only SETS COMMAND...: becomes the command. SETS as for setpriv(1): `-all,+net_admin`. What is
# in SETS and not held is not gained. For programs that gain nothing by executing others, either.
hold_only() {
  sets=$1
  shift
  if setpriv --bounding-set="$sets" --inh-caps=-all true 2>/dev/null; then
    set -- setpriv --bounding-set="$sets" --inh-caps=-all --no-new-privs "$@"
  fi
  exec "$@"
}
