"""Run the program ``mfkernel`` as ``python -m mfkernel``."""

from mfkernel.cli import main

if __name__ == "__main__":
    main()
