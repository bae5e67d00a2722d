"""Completed sessions: written, bounded, read back."""
