"""Routes and views."""

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import path


class GreetingForm(forms.Form):
    name = forms.CharField(max_length=40)


def index(request: HttpRequest) -> HttpResponse:
    """A form on GET, a greeting on POST."""
    form = GreetingForm(request.POST or None)
    greeted = form.cleaned_data["name"] if request.method == "POST" and form.is_valid() else None
    return render(request, "index.html", {"form": form, "greeted": greeted})


def about(request: HttpRequest) -> JsonResponse:
    """What Django makes of the environ."""
    return JsonResponse(
        {
            "path": request.path,
            "scheme": request.scheme,
            "host": request.get_host(),
            "agent": request.headers.get("User-Agent", ""),
            "query": request.GET.dict(),
        }
    )


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse((f"line {number}\n" for number in range(1, 6)), content_type="text/plain")


urlpatterns = [path("", index), path("about/", about), path("stream/", stream)]
