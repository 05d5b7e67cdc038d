"""Recorders in other people's environments; README.md says what they need and how to use them."""
