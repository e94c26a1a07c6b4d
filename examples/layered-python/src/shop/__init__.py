"""Recommends products that sell together."""
