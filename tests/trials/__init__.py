"""Tests of the room `trials`."""
