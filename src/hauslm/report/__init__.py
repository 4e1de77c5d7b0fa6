"""What does the reader get? Records -> blocks -> terminal, Markdown, HTML, PDF, JSON.

One tree of blocks (`blocks.py`) is written per record (`chapters/`), so every format says the same.
`report` needs nothing but the project folder.
"""
