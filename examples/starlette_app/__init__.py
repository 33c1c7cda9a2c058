"""The shop on Starlette."""
