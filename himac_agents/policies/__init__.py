"""Policies: tiny and hf (local models), scripted (the environments' own experts)."""
