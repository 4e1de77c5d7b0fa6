"""How do the threads wait for each other? As everywhere a model runs: see `lm/threads.py`."""

from hauslm.lm.threads import WAITING, settle

__all__ = ["WAITING", "settle"]
