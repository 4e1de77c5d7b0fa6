"""What comes with the package: a tiny base model, sample documents, a small labelled task.

Paths only; nothing is loaded here. The model shows the way, not quality.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model"
DOCUMENTS = FOLDER / "documents"
TASKS = FOLDER / "tasks"
