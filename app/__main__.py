"""``roundhouse``, and ``python -m app``: the command, which server processes that it spawns do not load."""

from app.loading import without_collector


def main() -> None:
    with without_collector():
        from app.cli import main as run

    run()


if __name__ == "__main__":
    main()
