"""``python -m mfkernel`` is the program ``mfkernel``."""

from mfkernel.cli import main

if __name__ == "__main__":
    main()
