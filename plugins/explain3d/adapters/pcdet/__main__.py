"""``python -m explain3d.adapters.pcdet``."""

from .launcher import main

if __name__ == '__main__':
    main()
