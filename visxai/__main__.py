"""`python -m visxai` is `visxai`."""

from visxai.cli import main

if __name__ == "__main__":
    main()
