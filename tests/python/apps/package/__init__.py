"""A package with its application in a module."""
