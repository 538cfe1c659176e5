"""Architectures, spaces and objectives."""
