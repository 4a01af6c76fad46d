"""The command line: one file per verb, each parses, calls one function and formats the result."""

from bitfold.cli.app import main

__all__ = ["main"]
