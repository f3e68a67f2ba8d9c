"""The application, as a server process loads it: ``app.asgi:create_app``."""

from app.loading import without_collector

with without_collector():
    from app.main import create_app as create_app
