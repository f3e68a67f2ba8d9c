"""The web's common ground, a file for each concern."""
