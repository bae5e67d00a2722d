"""`ocgate prove`: a twin of the configuration in scratch namespaces, broken under traffic.

Start at `twin` (the drawing); then `world` (namespaces), `subject` (what is proven), `clients` and
`traffic` (what is sent), `internet` (who answers), `ring` and `verdict` (what was seen and what it
means), `faults` (the matrix), `engine` (the run), `report`. May import every room but `cli`.
"""
