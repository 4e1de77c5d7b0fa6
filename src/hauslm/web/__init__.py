"""The same stages as pages, on this machine only.

`app.py` puts the pages together and serves them, `pages/` has them by topic, `room.py` what they share,
`guard.py` who may ask. `jobs.py` and `keeper.py` run stages as processes that outlive their page,
`talk.py` holds the model that the chat page talks to.
"""
