"""Room; see the modules inside."""
