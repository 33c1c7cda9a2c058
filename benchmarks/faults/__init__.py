"""The fault runs: real processes that are harmed on purpose, and what arrived in the end."""
