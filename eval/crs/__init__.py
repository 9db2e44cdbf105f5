"""Conversational recommendation benchmarks: ReDial and INSPIRED."""
