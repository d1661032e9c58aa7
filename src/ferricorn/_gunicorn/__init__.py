"""What `import gunicorn` finds when only ferricorn is installed: the names that configuration files and libraries use.

The version is that of the gunicorn whose behaviour is provided. `SERVER` and `SERVER_SOFTWARE` may be set, as before:
the first goes into the `Server` header, the second into the environ.
"""

version_info = (27, 0, 1)
__version__ = "27.0.1"
SERVER = "gunicorn"
SERVER_SOFTWARE = f"{SERVER}/{__version__}"
