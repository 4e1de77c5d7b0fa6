"""What is known about models, GPUs, prices and rules? The facts, each with source and date.

`schema` says what a fact file may hold, `load` reads the files, `prices` asks genai-prices and our
dated overlay for an API price, `local` finds base models on this disk, `show` lists it all.
"""
