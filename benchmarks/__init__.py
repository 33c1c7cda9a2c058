"""Measure what mp-asgi costs, beside anchors of the same run."""
