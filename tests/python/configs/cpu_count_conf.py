"""The formula of every article, and settings from the environment as containers have them."""

import multiprocessing
import os

bind = os.getenv("BIND", "0.0.0.0:8000")
workers = multiprocessing.cpu_count() * 2 + 1
threads = int(os.getenv("PYTHON_MAX_THREADS", 1))
reload = bool(int(os.getenv("WEB_RELOAD", "0")))
accesslog = "-"
errorlog = "-"
loglevel = os.getenv("LOG_LEVEL", "info")
worker_tmp_dir = "/dev/shm"
forwarded_allow_ips = "*"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
access_log_format = '%(h)s "%(r)s" %(s)s'
