"""Figures of merit: pure functions first, thin classes over them."""
