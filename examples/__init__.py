"""The same small shop in two frameworks: copy what a tracked app needs from `main.py`."""
