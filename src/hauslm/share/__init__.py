"""How does an adapter leave the house, and how is a stranger's let in?

`bundle` packs, `verify` checks before anything is loaded, `export` writes the ways out of hauslm.
"""
