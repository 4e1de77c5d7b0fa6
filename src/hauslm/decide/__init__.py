"""Cloud or own machine? The options, the rules before them, their cost, the verdict and its reasons.

Entrances: `verdict.decide` and `comparison.compare`; `note.note` writes a decision down, `diff.diff`
tells two apart, `why.why` answers for one option. Nothing is imported here, so that a command pays
only for what it uses.
"""
