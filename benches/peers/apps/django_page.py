"""One Django view that renders a template of ten rows; no database, the usual middleware."""

from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.shortcuts import render
from django.urls import path

settings.configure(
    SECRET_KEY="a benchmark has no secrets",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent / "templates"],
        }
    ],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)
django.setup()
ROWS = [{"name": f"row {number}", "value": number * number} for number in range(10)]


def page(request):
    return render(request, "page.html", {"rows": ROWS, "path": request.path})


urlpatterns = [path("", page)]
app = get_wsgi_application()
