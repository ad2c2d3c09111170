"""The command `webllm`; see `webllm.cli.main`."""

import sys


def main() -> None:
    """Runs the command. Ctrl-C is quiet from the first moment on, also while modules load."""
    try:
        from webllm.cli.main import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
