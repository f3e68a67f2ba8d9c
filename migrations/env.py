"""Alembic's entry: migrate over the connection that ``app.db`` hands in, or over the settings' own."""

from alembic import context
from sqlalchemy import Connection

import app.tables  # noqa: F401 - every room's tables, for --autogenerate
from app.db import Base, make_engine
from app.settings import Settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with make_engine(Settings().sqlalchemy_url).connect() as own:
        run(own)
