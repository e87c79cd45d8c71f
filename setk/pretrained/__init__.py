"""Trained models that ship with setk: NAME.pt, and NAME.md, its card."""
