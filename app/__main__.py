"""``roundhouse``, and ``python -m app``: the command, which server processes that it spawns do not load."""


def main() -> None:
    from app.cli import main as run

    run()


if __name__ == "__main__":
    main()
