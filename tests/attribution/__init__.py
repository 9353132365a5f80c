"""Tests of the room `attribution`."""
