"""The same stages as pages, on this machine only. `app.py` has the routes, `jobs.py` the running stage."""
