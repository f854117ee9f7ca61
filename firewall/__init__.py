"""A reverse proxy that judges every prompt and every streamed token against policies written in Markdown."""

__version__ = "0.1.0"
