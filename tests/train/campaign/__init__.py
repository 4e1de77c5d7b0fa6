"""The faults of the catalogue (F1-F18), each caused for real: short in `make test`, long in `make test-faults`."""
