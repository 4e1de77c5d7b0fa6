"""From the team's documents to examples: read, check, split by work, tokenize, store, pack.

prepare.py    the whole way (start reading here)      reading.py, readers/   files -> Document
rights.py     what a licence statement allows         split.py, placing.py   works -> splits, leaks
tokens.py     tokenizer and chat template             examples.py, task.py   -> tokens and loss mask
store.py      examples on the disk                    pack.py                rows of examples
check.py      what would waste a run                  summary.py             the record
"""
