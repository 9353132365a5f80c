"""Tests of the whole: real Ray, real MLflow, real training."""
