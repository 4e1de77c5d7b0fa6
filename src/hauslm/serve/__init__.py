"""Serve: the base model and its adapters behind an OpenAI-compatible API on this machine."""
