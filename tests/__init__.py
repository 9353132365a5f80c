"""Tests: one module per module of the package, and system/, which runs the real thing."""
