"""Erase and retrieve people: here, by the ledger, and at Mixpanel, by its GDPR API."""
