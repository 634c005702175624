"""`python -m wherefrom.cli`: the `wherefrom` command where its script is not on the path."""

from wherefrom.cli import main

if __name__ == "__main__":
    main()
