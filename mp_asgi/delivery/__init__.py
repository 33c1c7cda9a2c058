"""Deliver what was accepted: outbox, pump, transport and the worker that drives them."""
