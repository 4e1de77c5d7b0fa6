"""Sphinx's configuration of the manual; `scripts/docs.py` sets the language by HAUSLM_LANGUAGE."""

import os

from hauslm.base.version import __version__

project = "hauslm"
author = "The hauslm authors"
copyright = "The hauslm authors, Apache-2.0"
release = version = __version__
language = os.environ.get("HAUSLM_LANGUAGE", "en")
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_site"]
html_theme = "furo"
html_title = "hauslm"
html_static_path = ["_site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
suppress_warnings = ["misc.highlighting_failure"]
# Fences show what is typed and what is read, not programs alone.
highlight_language = "none"
