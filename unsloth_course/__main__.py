"""`python -m unsloth_course COMMAND`."""

from .cli import main

main()
