"""Live states as pieces of a page: what a record does not hold because it moves while one looks.

`whatif.py` the verdict under changed answers, `form.py` the scenario as fields, `training.py` a run that
is going on, `chapters.py` records as pages, `articles.py` one article and where its rows stand in it.
Each gives values and HTML made of the report's blocks; `web` puts them on pages, and starts processes.
"""
