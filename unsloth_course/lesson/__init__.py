"""What a notebook imports. `unsloth_course/__init__.py` is the list of its rooms."""
