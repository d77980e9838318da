"""What the server of `forked.py` imports: Unsloth, as the course has it imported in the cpu profile, and one thread."""

from unsloth_course import profile

profile.detect("cpu", "pocket", "pocket", lesson="lora")
profile.quiet()
import unsloth  # noqa: E402, F401
