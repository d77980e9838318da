"""Is a person at the other end of this kernel, or a program that executes the notebook?"""

import sys


def is_interactive() -> bool:
    """True in JupyterLab, Colab and VS Code; False under nbclient, nbmake, nbconvert, papermill and plain Python.

    Every execute request of the Jupyter protocol says whether the front end can answer `input()` (`allow_stdin`).
    Front ends with a person say yes; nbclient, on which the others stand, says no. ipykernel keeps the last answer.
    Lessons show a widget when this is True and a static picture when it is not.
    https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    kernel = getattr(shell, "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
