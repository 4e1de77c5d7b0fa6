"""The ground floor: errors, quantities, files, words and the network door.

Nothing in here knows what a language model is, and nothing in here imports a heavy library:
`hauslm --help` passes through these modules.
"""
