"""The exit role's tunnel: its kinds, its servers, and the kill switch that stands around it.

profile (what the operator gave) -> remotes -> endpoint -> launch -> carried -> killswitch.plan
"""
