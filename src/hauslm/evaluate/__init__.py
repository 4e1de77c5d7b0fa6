"""Does the adapter help? Task, text, forgetting, memorisation; the document is the unit."""
