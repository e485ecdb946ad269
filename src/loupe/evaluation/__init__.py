"""Scoring networks and pictures against ground truth, and showing the result."""
