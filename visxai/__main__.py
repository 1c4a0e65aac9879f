"""The entry point of `python -m visxai`, which does what the command `visxai` does."""

from visxai.cli import main

if __name__ == "__main__":
    main()
