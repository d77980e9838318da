#!/bin/sh
# Finds a Python 3.11-3.13 and hands over to unsloth_course/setup/install.py.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
for python in python3 python3.12 python3.13 python3.11 python; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
        exec "$python" "$here/unsloth_course/setup/install.py" "$@"
    fi
done
echo "No Python 3.11, 3.12 or 3.13 was found. Install one (VENV_SETUP.md says how) and run this again." >&2
exit 1
