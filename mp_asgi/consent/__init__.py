"""Decide whether a visitor may be tracked: what was chosen, what the request says, what follows."""
