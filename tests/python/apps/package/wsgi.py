"""package.wsgi:application"""

from hello import _text

application = _text("package")
