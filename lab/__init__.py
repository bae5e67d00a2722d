"""The lab: namespaces, real programs, traffic and captures, shared by tests and `ocgate prove`.

Start at `topology` (the drawing); then `gateway` or `ocserv` (the server under test), `client`
(openconnect), `traffic` and `inject` (what is sent), `services` and `dns` (who answers), `capture`
(what was seen), `kernel_state` (what is left). Nothing outside of tests, bench and `prove` may
import this room; it imports no other edge.
"""
