"""`python -m webllm`: the command `webllm`."""

from webllm.cli import main

if __name__ == "__main__":
    main()
