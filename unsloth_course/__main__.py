"""`python -m unsloth_course COMMAND`."""

from unsloth_course.cli import main

main()
