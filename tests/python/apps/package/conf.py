"""-c python:package.conf"""

workers = 2
wsgi_app = "hello:app"
