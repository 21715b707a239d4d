"""``python -m deepnet_edu`` is the command ``deepnet-edu``."""

from deepnet_edu.cli import main

if __name__ == "__main__":
    main()
