"""The command `webllm`; see `webllm.cli.main`."""

import sys


def main() -> None:
    """Runs the command. Ctrl-C ends it without a traceback, also while modules are imported."""
    try:
        from webllm.cli.main import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
