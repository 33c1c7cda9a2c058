"""Meet the frameworks: each module needs its framework, and nothing else of us needs it."""
